"""Does a small policy, trained from scratch on a CPU, act better on episodes it has not seen than one constant action?

    python benchmarks/policy.py [--calvin FOLDER] [--metaworld FOLDER] [--seeds 0 1 2] [--json]
                                [options of jobs/stage2.py]

- `--calvin`: a folder in CALVIN's layout. Both cameras, actions as they are stored (`rel_actions`, within [-1, 1]);
  its validation split judges.
- `--metaworld`: demonstrations that `jobs/collect.py` recorded. A quarter of the episodes judges.

Each part runs the project's own jobs: `preprocess`, `stage1` with the preset `tiny` and its own small codec, then
`stage2` with the preset `tiny` for each seed, which changes initial weights, order and noise, and neither the video
model nor the episodes that are held out. Told is what stage 2's last validation writes: its loss, the mean squared
error of drawn actions in normalised units, that of the training actions' mean, and the decibels between the two. Runs
are kept under `--work`; the same command goes on with them, and other options want another folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from vpp.train.checkpoint import latest_checkpoint

JOBS = Path(__file__).resolve().parents[1] / "jobs"
STAGE1_STEPS = 20
SMALL_CODEC_STEPS = 50
"""Both few: the video model is hardly trained, and the table says what a policy makes of such features."""


@dataclass(frozen=True)
class Part:
    """A dataset of the benchmark.

    Attributes:
        source: What `jobs/preprocess.py` is told, with a place for the folder.
        options: Of `jobs/stage2.py`.
    """

    source: str
    options: tuple[str, ...]


PARTS = {
    "calvin": Part("calvin=calvin:{}", ("--normalise-actions", "none")),
    "metaworld": Part(
        "metaworld=openx-lerobot:{}#window.stride=4&window.hop=8", ("--loading.validation-fraction", "0.25")
    ),
}


def prepare(part: Part, folder: str, work: Path) -> tuple[Path, Path]:
    """Preprocesses and trains the video model, or goes on with both; returns their folders."""
    data, video_model = work / "data", work / "stage1"
    _run("preprocess", "--sources", part.source.format(folder), "--output", data, "--text-encoder", "tiny")
    _run(
        "stage1", "--preset", "tiny", "--codec", "train", "--data", data, "--output", video_model,
        "--train.steps", STAGE1_STEPS, "--small-codec.steps", SMALL_CODEC_STEPS, "--workers.cpus-per-worker", 1,
    )  # fmt: skip
    return data, video_model


def judge(part: Part, data: Path, video_model: Path, run: Path, seed: int, options: list[str]) -> dict[str, float]:
    """Trains a policy, or goes on with it; returns what its last validation found, and the seconds that it took."""
    started = time.monotonic()
    _run(
        "stage2", "--preset", "tiny", "--data", data, "--video-model", video_model, "--output", run,
        "--train.seed", seed, "--workers.cpus-per-worker", 1, *part.options, *options,
    )  # fmt: skip
    seconds = time.monotonic() - started
    checkpoint = latest_checkpoint(str(run))
    assert checkpoint is not None
    return {"steps": checkpoint.step, "training_s": round(seconds), **checkpoint.metrics}


def _run(job: str, *arguments: object) -> None:
    command = [sys.executable, str(JOBS / f"{job}.py"), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    """Trains, judges, prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PARTS:
        parser.add_argument(f"--{name}", default="", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=Path("out/policy"))
    parser.add_argument("--json", action="store_true")
    arguments, options = parser.parse_known_args()
    folders = {name: getattr(arguments, name) for name in PARTS if getattr(arguments, name)}
    if not folders:
        parser.error("expected --calvin or --metaworld")
    logging.basicConfig(level=logging.WARNING)
    results: list[dict[str, str | float]] = []
    for name, folder in folders.items():
        work = arguments.work / name
        data, video_model = prepare(PARTS[name], folder, work)
        for seed in arguments.seeds:
            found = judge(PARTS[name], data, video_model, work / f"seed_{seed}", seed, options)
            results.append({"data": name, "seed": seed, **found})
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print("| data | seed | steps | training | loss | error of drawn actions | of the constant action | gain |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in results:
        print(
            f"| {row['data']} | {row['seed']} | {row['steps']} | {row['training_s']} s | {row['val/loss']:.3f} | "
            f"{row['val/action_mse']:.4f} | {row['val/action_mse_constant']:.4f} | "
            f"{row['val/action_gain_db']:+.2f} dB |"
        )


if __name__ == "__main__":
    main()
