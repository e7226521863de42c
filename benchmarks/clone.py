"""The line to beat: a plain convolutional clone on the windows that a policy trains on, in the same simulator.

    python benchmarks/clone.py --data out/learn --output out/learn/clone [--episodes 20] [--steps 1500] [--json]

The picture of the first camera through five convolutions, the instruction's CLIP embedding and the proprioception
beside them, three linear layers, and out comes a chunk of actions; mean squared error. Nothing of the video model. Each
task whose instruction is in the data is evaluated on the scenes that `jobs/evaluate.py` plans, once told its own
instruction and once the next task's. Leaves `own/` and `next/` as that job leaves an evaluation, and `clone.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from vpp.data.action_statistics import action_statistics, proprio_statistics
from vpp.data.settings import WindowSettings
from vpp.data.window_index import WindowIndex
from vpp.data.window_reader import read_windows
from vpp.policy.normalise import make_normaliser
from vpp.sim.benchmark import find_benchmark
from vpp.sim.evaluation_rows import EVALUATION, SUMMARY, Row, summarise, write_json, write_rows
from vpp.sim.rollout import Moment, Observe, run_episode
from vpp.sim.simulator import Simulator
from vpp.video.model_folder import loadable_name
from vpp.video.text_encoder import ClipTextEncoder, load_text_encoder

_READ_AT_ONCE = 512
_WARM_UP = 100


class Clone(nn.Module):
    """Actions `[B, H, A]` from pictures uint8 `[B, S, S, 3]`, goals `[B, 512]` and proprioception `[B, P]`."""

    def __init__(self, proprio_dim: int, num_actions: int, action_dim: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 64, 96, 96)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.ReLU()]
        self.see = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(96 * 16, 256), nn.ReLU())
        self.hear = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 64), nn.ReLU())
        self.act = nn.Sequential(
            nn.Linear(256 + 64 + proprio_dim, 256), nn.ReLU(), nn.Linear(256, num_actions * action_dim),
            nn.Unflatten(1, (num_actions, action_dim)),
        )  # fmt: skip

    def forward(self, pictures: torch.Tensor, goals: torch.Tensor, proprio: torch.Tensor) -> torch.Tensor:
        """Normalised actions."""
        seen = self.see(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        actions: torch.Tensor = self.act(torch.cat([seen, self.hear(goals), proprio], dim=1))
        return actions


@dataclasses.dataclass
class Data:
    """Training windows in memory: N of them."""

    index: WindowIndex
    pictures: torch.Tensor
    captions: tuple[str, ...]
    proprio: torch.Tensor
    actions: torch.Tensor
    action_is_pad: torch.Tensor


def read(url: str, fraction: float) -> Data:
    """The training windows of a dataset."""
    index = WindowIndex.read(url, WindowSettings(proprio=True, data_fraction=fraction))
    rows = index.split.train
    batches = [
        read_windows(index, rows[start : start + _READ_AT_ONCE], "frames")
        for start in tqdm(range(0, len(rows), _READ_AT_ONCE), desc="read", unit=f"x{_READ_AT_ONCE}")
    ]
    captions = tuple(caption for batch in batches for caption in batch.captions)

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    pictures = torch.cat([batch.frames[:, 0] for batch in batches if batch.frames is not None])
    return Data(index, pictures, captions, joined("proprio"), joined("actions"), joined("action_is_pad"))


class CloneActor:
    """Acts in an episode as the loop asks."""

    def __init__(self, clone: Clone, encoder: ClipTextEncoder, camera: str, restore: Any, normalise: Any) -> None:
        self._clone, self._encoder, self._camera = clone, encoder, camera
        self._restore, self._normalise = restore, normalise
        self._goals: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        """A chunk `[H, A]`."""
        seen = observe()
        if instruction not in self._goals:
            self._goals[instruction] = torch.as_tensor(self._encoder.encode_goals([instruction])).float()
        picture = torch.from_numpy(seen[f"observation.images.{self._camera}"])[None]
        proprio = self._normalise(torch.from_numpy(seen["observation.state"])[None])
        actions: np.ndarray = self._restore(self._clone(picture, self._goals[instruction], proprio))[0].numpy()
        return actions


def train(data: Data, encoder: ClipTextEncoder, steps: int, batch_size: int, seed: int) -> tuple[Clone, Any, Any]:
    """A trained clone, what restores its actions and what normalises proprioception."""
    (action,), (state,) = action_statistics(data.index).values(), proprio_statistics(data.index).values()
    action_norm = make_normaliser("min_max", mean=action.mean, std=action.std, low=action.low, high=action.high)
    proprio_norm = make_normaliser("mean_std", mean=state.mean, std=state.std, low=state.low, high=state.high)
    goals = {caption: torch.as_tensor(encoder.encode_goals([caption])[0]).float() for caption in set(data.captions)}
    torch.manual_seed(seed)
    clone = Clone(data.proprio.shape[1], *data.actions.shape[1:])
    optimizer = torch.optim.AdamW(clone.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1.0 + np.cos(np.pi * step / steps))
    )
    draw = np.random.default_rng(seed)
    with tqdm(total=steps, desc="clone", unit="step") as bar:
        for _ in range(steps):
            rows = draw.integers(len(data.captions), size=batch_size)
            at = torch.from_numpy(rows)
            goal = torch.stack([goals[data.captions[row]] for row in rows.tolist()])
            predicted = clone(data.pictures[at], goal, proprio_norm.normalise(data.proprio[at]))
            error = (predicted - action_norm.normalise(data.actions[at])).square().mean(-1)
            loss = error[~data.action_is_pad[at]].mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix_str(f"loss {float(loss.detach()):.4f}", refresh=False)
    return clone.eval(), action_norm.restore, proprio_norm.normalise


def evaluate(
    actor: CloneActor, camera: str, told: Mapping[str, str], instructions: str, size: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Runs the episodes of all tasks and writes what `jobs/evaluate.py` would; returns the summary."""
    benchmark = find_benchmark("metaworld")
    simulator, tasks = benchmark.make((camera,), size, size), tuple(told)
    output = str(Path(options.output) / instructions)
    conditions = {"policy": "plain clone", "tasks": tasks, "instructions": instructions, "benchmark": benchmark.name}
    conditions |= {name: getattr(options, name) for name in ("seed", "episodes", "max_steps", "num_executed")}
    write_json(f"{output}/{EVALUATION}", conditions)
    rows = []
    plans = benchmark.plan(tasks, options.episodes, options.seed)
    for plan in tqdm(plans, desc=f"told {instructions}", unit="episode"):
        (result,) = run_episode(
            simulator, plan, actor, max_steps=options.max_steps, num_executed=options.num_executed, told=told
        )
        values = dataclasses.asdict(result)
        rows.append(Row(plan.number, group=None, seed=plan.seed, attempts=1, reason=None, video=None, **values))
        write_rows(output, rows[-1:])
    simulator.close()
    summary = {"benchmark": benchmark.name, "policy": "plain clone", **summarise(rows, tasks)}
    write_json(f"{output}/{SUMMARY}", summary)
    return summary


def main() -> None:
    """Trains, evaluates, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--data-fraction", type=float, default=1.0)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--num-executed", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()

    result_file = Path(options.output) / "clone.json"
    if result_file.exists():
        print(f"{result_file}: there already")
        return
    began = time.monotonic()
    data = read(options.data, options.data_fraction)
    (models,) = data.index.models()
    encoder = load_text_encoder(loadable_name(models.text_encoder))
    clone, restore, normalise = train(data, encoder, options.steps, options.batch_size, options.seed)
    trained = time.monotonic()
    camera, size = data.index.cameras[0], data.pictures.shape[1]
    actor = CloneActor(clone, encoder, camera, restore, normalise)
    instructions = find_benchmark("metaworld").instructions
    own = {task: told for task, told in instructions.items() if told in set(data.captions)}
    following = dict(zip(own, [*list(own.values())[1:], *list(own.values())[:1]], strict=True))
    results = {
        name: evaluate(actor, camera, told, name, size, options) for name, told in (("own", own), ("next", following))
    }
    record = {
        "mean": results["own"]["mean"],
        "mean_told_next": results["next"]["mean"],
        "settings": vars(options),
        "train_s": round(trained - began, 1),
        "evaluate_s": round(time.monotonic() - trained, 1),
    }
    result_file.parent.mkdir(parents=True, exist_ok=True)
    result_file.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record) if options.json else json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
