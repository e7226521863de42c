"""The whole preprocessing job on two Ray nodes against one, each node of one core of its own; measured in turn.

    python benchmarks/nodes.py [--json] [--rounds 3] [--videos 4] [--copies 9]

Each measurement starts a cluster of real raylets with a token: a head without CPUs, and one or two nodes of 1 CPU under
`taskset`, one core each. Then `jobs/preprocess.py` runs on it into a new folder. The videos are those of
`benchmarks/preprocess.py` (640x480 H.264, stride 2, hop 4), listed several times.

- shard phase: clips per second of the stage that makes shards, as the job itself tells in `summary.json`
- whole job: clips per second of the process from its start to its end, with imports, joining Ray, listing, planning,
  counting; the cluster is up before
- limit: the loop of `benchmarks/preprocess.py` that only decodes, resizes and encodes, in one process on a core and in
  two on two cores; what the machine itself gives for the second core

Head and driver are bound to no core. With one node they have the other core for themselves, with two they take their
share from the nodes, so that the ratio is rather too low. Workers start with the job, inside the measured time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import measure
import psutil
from preprocess import limit, rate, video_path, work_of, write_source

ROOT = Path(__file__).resolve().parents[1]
_STARTED = "Ray runtime started"
_START_S = 120.0  # a busy machine takes its time


def write_videos(folder: Path, num_videos: int, num_frames: int, copies: int) -> str:
    """Writes a source whose videos are each listed `copies` times; returns `NAME=KIND:URL#...`."""
    source = write_source(folder, num_videos, num_frames)
    for annotation in sorted((folder / "annotation" / "train").iterdir()):
        for number in range(1, copies):
            shutil.copy(annotation, annotation.with_name(f"{annotation.stem}_{number}.json"))
    return source


class OneMachineCluster:
    """Raylets on this machine with a token of their own.

    Args:
        folder: For Ray's files; sockets need a short path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen] = []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment |= {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.nodes: list[psutil.Process] = []

    def start(self, cores: Sequence[int]) -> None:
        """Starts the head, and a node of 1 CPU on each of some cores."""
        address = f"127.0.0.1:{_free_port()}"
        self._start("head", [], ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"], 0)
        for core in cores:
            pinned = ["taskset", "--cpu-list", str(core)]
            self.nodes.append(self._start(f"node_{core}", pinned, [f"--address={address}"], 1))
        self.environment["RAY_ADDRESS"] = address

    def _start(self, name: str, before: list[str], options: list[str], num_cpus: int) -> psutil.Process:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [*before, ray, "start", "--block", f"--num-cpus={num_cpus}"]
        command += ["--object-store-memory=200000000", *options]
        log = self._folder / f"{name}.log"
        with log.open("w") as handle:
            process = subprocess.Popen(command, env=self.environment, stdout=handle, stderr=subprocess.STDOUT)
        self._started.append(process)
        deadline = time.monotonic() + _START_S
        while _STARTED not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"expected a Ray node to start, found:\n{log.read_text()}")
            time.sleep(0.2)
        return psutil.Process(process.pid)

    def end(self) -> None:
        """Ends all of it, process by process."""
        alive = [process for process in self._started if process.poll() is None]
        children = [psutil.Process(process.pid).children(recursive=True) for process in alive]
        for process in reversed(alive):
            process.terminate()
        for process in alive:
            process.wait()
        for child in itertools.chain(*children):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@contextlib.contextmanager
def cluster_on(cores: Sequence[int]) -> Iterator[OneMachineCluster]:
    """A cluster with a node on each of some cores, for the block."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = OneMachineCluster(Path(folder))
        try:
            cluster.start(cores)
            yield cluster
        finally:
            cluster.end()


def run_job(cores: Sequence[int], source: str, output: Path, shard_clips: int) -> dict[str, float]:
    """Runs the job on a new cluster; returns clips per second of both kinds, and how evenly the nodes worked."""
    options = ["--products", "clips", "--text-encoder", "none", "--shard.clips", str(shard_clips)]
    command = [sys.executable, str(ROOT / "jobs" / "preprocess.py"), "--sources", source, "--output", str(output)]
    with cluster_on(cores) as cluster:
        began = time.monotonic()
        with (output.parent / f"{output.name}.log").open("w+") as log:
            job = subprocess.Popen([*command, *options], env=cluster.environment, stdout=log, stderr=subprocess.STDOUT)
            busy: list[dict[int, float]] = [{} for _ in cores]
            while job.poll() is None:
                for node, of_node in zip(cluster.nodes, busy, strict=True):
                    _note_busy(node, of_node)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(1.0)
            took = time.monotonic() - began
            if job.returncode != 0:
                log.seek(0)
                raise RuntimeError(f"the job ended with {job.returncode}:\n{log.read()}")
    run = json.loads((output / "summary.json").read_text())["this_run"]
    shares = [sum(of_node.values()) for of_node in busy]
    return {
        "clips": run["written"],
        "shards": run["shards"],
        "shard_phase": run["written"] / run["seconds"],
        "whole_job": run["written"] / took,
        "smallest_share": min(shares) / sum(shares),
    }


def _note_busy(node: psutil.Process, busy_s: dict[int, float]) -> None:
    """Notes the processor time of a node's workers by process id."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in node.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("ray::"):
                    times = process.cpu_times()
                    busy_s[process.pid] = times.user + times.system


def limit_on(core: int, source: str, root: Path) -> float:
    """Clips per second of the tight loop on a core, in this process."""
    os.sched_setaffinity(0, {core})
    work = work_of([source], partial(video_path, root))
    return rate(partial(limit, work))[0]


def limit_rate(cores: Sequence[int], source: str, root: Path) -> float:
    """Clips per second of that loop in as many processes at a time as there are cores, together."""
    with ProcessPoolExecutor(len(cores), mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(limit_on, cores, [source] * len(cores), [root] * len(cores)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Parses, measures in turn, prints medians and the medians of each round's ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=1200)
    parser.add_argument("--copies", type=int, default=9, help="how often each video is listed")
    parser.add_argument("--shard-clips", type=int, default=128)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        parser.error("expected two cores, found one")
    kinds = ("shard_phase", "whole_job", "limit")
    rates: dict[str, dict[int, list[float]]] = {kind: {1: [], 2: []} for kind in kinds}
    shares = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        single = write_source(folder / "single", arguments.videos, arguments.frames)
        source = write_videos(folder / "source", arguments.videos, arguments.frames, arguments.copies)
        for number in range(arguments.rounds):
            for count in (1, 2) if number % 2 == 0 else (2, 1):
                found = run_job(cores[:count], source, folder / f"out_{number}_{count}", arguments.shard_clips)
                found["limit"] = limit_rate(cores[:count], single, folder / "single")
                for kind in kinds:
                    rates[kind][count].append(found[kind])
                if count == 2:
                    shares.append(found["smallest_share"])
                told = ", ".join(f"{kind} {found[kind]:.1f} clips/s" for kind in kinds)
                print(f"round {number + 1}: {count} node(s): {found['shards']} shards: {told}", flush=True)
                shutil.rmtree(folder / f"out_{number}_{count}")
    figures: dict[str, float] = {"clips": found["clips"], "shards": found["shards"]}
    for kind in kinds:
        one, two = rates[kind][1], rates[kind][2]
        figures[f"{kind}_one_clips_per_s"] = statistics.median(one)
        figures[f"{kind}_two_clips_per_s"] = statistics.median(two)
        figures[f"ratio_{kind}"] = statistics.median(after / before for before, after in zip(one, two, strict=True))
    figures["smallest_share_of_work"] = min(shares)
    measure.finish({"ratio": figures["ratio_shard_phase"]} | figures, arguments.json)


if __name__ == "__main__":
    main()
