"""A policy server under 1, 4 and 16 clients, against the plain way of serving, which is openpi's.

    OMP_NUM_THREADS=1 python benchmarks/serve.py [--json] [--clients 1 4 16] [--seconds 5] [--model-ms 50]
                                                 [--policy FOLDER]

Each client sends two 256x256 pictures, proprioception and an instruction, and asks again as soon as it is answered:
harder than robots, which act in between. Servers run in processes of their own, clients as threads of this one, all on
this machine; both sides take turns:

- ours: `PolicyServer`, batches of up to 16
- plain: a WebSocket handler that unpacks, calls the policy, packs, one request after another, and checks nothing

The policy of both is a stand-in that sleeps `--model-ms` whatever the size of the batch, and answers 10 actions: it
costs no processor's time, and its batches are free, as those of a GPU are only as long as it is not full. What it
shows is what the servers add, not what a policy takes. With `--policy`, ours serves that policy on this machine too,
and then model, server and clients share its cores.

Told are latencies as a client sees them, answers and actions per second, the mean size of batches, and what is added to
the policy's own time and the time that it was busy with others:

- `server_added`: by the server, from the arrival of a message until its answer is sent: unpack, check, hand over, pack
- `added`: by all, as a client sees it: packing, the way there and back and unpacking too

Both depend on what else runs on the machine (`load`), and on how deep the processor sleeps between two requests: a
machine with some load adds less than an idle one. The processor's time of the server's process for an answer is told
too.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import measure
import numpy as np
import psutil
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.batch_queue import BatchQueue
from vpp.policy.config import PolicyConfig
from vpp.policy.policy_folder import read_config
from vpp.serve.client import PolicyClient
from vpp.serve.protocol import pack, unpack
from vpp.serve.request import ChunkRequest, metadata
from vpp.serve.serve_job import serve as serve_policy
from vpp.serve.server import Limits, PolicyServer
from vpp.serve.settings import ServeSettings

NUM_ACTIONS, ACTION_DIM, BATCH = 10, 7, 16
GATHER_S = ServeSettings().gather_ms / 1000
CONFIG = PolicyConfig(
    cameras=("front", "wrist"),
    denoiser=ActionDenoiserConfig(action_dim=ACTION_DIM, num_actions=NUM_ACTIONS, proprio_dim=ACTION_DIM),
)
Serve = Callable[[Connection, Any], None]


def observation(config: PolicyConfig) -> dict[str, Any]:
    """What a robot sees."""
    random, shape = np.random.default_rng(0), (config.frame_size, config.frame_size, 3)
    pictures = {f"observation.images.{camera}": random.integers(0, 256, shape, np.uint8) for camera in config.cameras}
    state = random.random(config.denoiser.proprio_dim).astype(np.float32)
    return {**pictures, "observation.state": state, "task": "open the drawer"}


def serve_ours(ready: Connection, model_s: float) -> None:
    """Our server, with the stand-in."""
    threads = ThreadPoolExecutor(1)

    def chunks(requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        time.sleep(model_s)
        return [np.zeros((NUM_ACTIONS, ACTION_DIM), np.float32) for _ in requests]

    def answer(requests: Sequence[ChunkRequest]) -> Awaitable[list[np.ndarray]]:
        return asyncio.get_running_loop().run_in_executor(threads, chunks, requests)

    async def run() -> None:
        queue: BatchQueue[ChunkRequest, np.ndarray] = BatchQueue(answer, BATCH, 1, 64)
        server = PolicyServer(CONFIG, queue, metadata(CONFIG, ""), Limits(64, 4 * 2**20), gather_s=GATHER_S)
        ready.send(await server.start("127.0.0.1", 0))
        await asyncio.Event().wait()

    asyncio.run(run())


def serve_plain(ready: Connection, model_s: float) -> None:
    """The plain way, with the stand-in."""

    async def handle(client: ServerConnection) -> None:
        await client.send(pack(metadata(CONFIG, "")))
        total_ms = 0.0
        try:
            async for message in client:
                arrived = time.perf_counter()
                assert isinstance(message, bytes)
                assert unpack(message)
                started = time.perf_counter()
                time.sleep(model_s)
                timing = {"infer_ms": (time.perf_counter() - started) * 1000, "wait_ms": 0.0, "batch": 1}
                timing["prev_total_ms"] = total_ms
                actions = np.zeros((NUM_ACTIONS, ACTION_DIM), np.float32)
                await client.send(pack({"actions": actions, "server_timing": timing}))
                total_ms = (time.perf_counter() - arrived) * 1000
        except ConnectionClosed:
            pass

    async def run() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            ready.send(server.sockets[0].getsockname()[1])
            await asyncio.Event().wait()

    asyncio.run(run())


def serve_folder(ready: Connection, folder: str) -> None:
    """Our server as jobs/serve.py runs it."""
    serve_policy(ServeSettings(policy=folder, port=0), lambda told: ready.send(int(told.rpartition(":")[2])))


class Running:
    """A server in a process of its own."""

    def __init__(self, target: Serve, argument: Any) -> None:
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(target=target, args=(sending, argument), daemon=True)
        self._process.start()
        self.port: int = receiving.recv()

    def cpu_s(self) -> float:
        """Processor's time that it has spent."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def end(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.join()


def load(port: int, seen: dict[str, Any], num_clients: int, seconds: float) -> np.ndarray:
    """Asks with so many clients at once.

    Returns:
        A row for each answer: its latency, the policy's time and the wait for it, size of its batch, number of actions,
        and what the server added to the answer before; times in ms.
    """
    begin, rows = threading.Barrier(num_clients), [[] for _ in range(num_clients)]  # type: ignore[var-annotated]

    def ask(number: int) -> None:
        with PolicyClient(port=port) as client:
            before = client.infer(seen)["server_timing"]
            begin.wait()
            end = time.perf_counter() + seconds
            while (started := time.perf_counter()) < end:
                answer = client.infer(seen)
                latency, timing = (time.perf_counter() - started) * 1000, answer["server_timing"]
                server_added = timing["prev_total_ms"] - before["infer_ms"] - before["wait_ms"]
                before = timing
                row = latency, timing["infer_ms"], timing["wait_ms"], timing["batch"], len(answer["actions"])
                rows[number].append((*row, server_added))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array([row for of_client in rows for row in of_client])


def figures_of(side: str, num_clients: int, rounds: Sequence[np.ndarray], seconds: float) -> dict[str, Any]:
    """Of all rounds of a side together."""
    answers = np.concatenate(rounds)
    latency, infer, wait, batch, actions, server_added = answers.T
    name, spent_s = f"{side}_{num_clients}", seconds * len(rounds)
    figures: dict[str, Any] = {f"{name}_answers": len(answers)}
    figures |= {f"{name}_latency_p{p}_ms": float(np.percentile(latency, p)) for p in (50, 99)}
    figures[f"{name}_actions_per_s"] = float(actions.sum() / spent_s)
    if side != "plain" or num_clients == 1:  # what the others wait for, plain does not tell
        for what, added in (("server_added", server_added), ("added", latency - infer - wait)):
            figures |= {f"{name}_{what}_p{p}_ms": float(np.percentile(added, p)) for p in (50, 99)}
    if side != "plain":
        figures[f"{name}_mean_batch"] = float(len(answers) / (1 / batch).sum())
    return figures


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each side, number of clients and round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model-ms", type=float, default=50.0)
    parser.add_argument("--policy", default="", help="a policy's folder, to be served on this machine")
    arguments = parser.parse_args()

    sides: dict[str, tuple[Serve, Any, PolicyConfig]] = {
        "ours": (serve_ours, arguments.model_ms / 1000, CONFIG),
        "plain": (serve_plain, arguments.model_ms / 1000, CONFIG),
    }
    if arguments.policy:
        sides["policy"] = (serve_folder, arguments.policy, read_config(arguments.policy))
    running = {side: Running(target, argument) for side, (target, argument, _) in sides.items()}
    loads = [os.getloadavg()[0]]
    figures: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0)), "model_ms": arguments.model_ms}
    for num_clients in arguments.clients:
        answers: dict[str, list[np.ndarray]] = {side: [] for side in sides}
        spent = dict.fromkeys(sides, 0.0)
        for _ in range(arguments.rounds):
            for side, (_, _, config) in sides.items():
                before = running[side].cpu_s()
                answers[side].append(load(running[side].port, observation(config), num_clients, arguments.seconds))
                spent[side] += running[side].cpu_s() - before
        for side, rounds in answers.items():
            figures |= figures_of(side, num_clients, rounds, arguments.seconds)
            figures[f"{side}_{num_clients}_server_cpu_ms"] = spent[side] * 1000 / sum(map(len, rounds))
        loads.append(os.getloadavg()[0])
    for server in running.values():
        server.end()
    figures["load"] = f"{min(loads):.1f} to {max(loads):.1f}"
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
