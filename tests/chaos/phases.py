"""The four jobs that chaos disturbs: their inputs in the store, their commands, and how far a run of them is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from episode_dataset import write_episode_dataset
from layouts import write_vpp_layout
from tiny_policy import write_policy
from video_dataset import write_video_dataset
from video_model import write_video_model

BUCKET = "chaos"
_URL = f"s3://{BUCKET}"

_EVERY = 3  # steps from one checkpoint to the next
_LOOP = (
    f"--preset tiny --train.batch-size 4 --train.micro-batch-size 2 --train.precision fp32 --train.checkpoint-every {_EVERY} "
    "--train.log-every 1 --train.validate-every 0 --loading.mixture drawers=0.6,blocks=0.4 "
    "--loading.validation-fraction 0 --workers.num-workers 1 --workers.cpus-per-worker 1"
)


@dataclass(frozen=True)
class Phase:
    """A job with its inputs.

    Attributes:
        name: One of `chaos.faults.PHASES`.
        make_inputs: Writes them below a bucket's folder, where the job reads them from the store.
        command: Name and options of the job, without `--output`.
        finished: Patterns of the files that the job leaves one after another, below its output.
    """

    name: str
    make_inputs: Callable[[Path], object]
    command: tuple[str, ...]
    finished: tuple[str, ...]

    def progress(self, output: Path) -> int:
        """How many files of these kinds the job has finished, also where it has removed them since."""
        found = 0
        for pattern in self.finished:
            with contextlib.suppress(FileNotFoundError):  # a folder that goes while it is looked at
                found += _count(output, pattern)
        return found


def _count(output: Path, pattern: str) -> int:
    paths = list(output.glob(pattern))
    if pattern.startswith("checkpoints/"):  # old ones are removed
        return max((int(path.parent.name.removeprefix("step_")) for path in paths), default=0) // _EVERY
    return len(paths)


def make_phases(training_steps: int, size: int) -> Iterator[Phase]:
    """The phases in the order of the path from video to robot.

    Args:
        training_steps: Of each stage.
        size: Source episodes of preprocessing, and episodes of each of two tasks in the evaluation.
    """
    windows = "window.mode=sliding&window.stride=2&window.hop=2"
    yield Phase(
        "preprocess",
        lambda bucket: write_vpp_layout(bucket / "videos", num_episodes=size, num_frames=60),
        (
            "preprocess", "--sources", f"a=vpp-layout:{_URL}/videos#{windows}", f"b=vpp-layout:{_URL}/videos",
            "--text-encoder", "tiny", "--shard.clips", "8", "--shard.frames", "128",
        ),
        ("plan/*/plan.json", "plan/*/text/*", "clips/manifest/*/*.parquet", "episodes/manifest/*/*.parquet"),
    )  # fmt: skip
    steps = ("--train.steps", str(training_steps), *_LOOP.split())
    trained = ("checkpoints/*/complete.json",)
    yield Phase(
        "stage1",
        lambda bucket: write_video_dataset(str(bucket / "clips"), {"drawers": 16, "blocks": 12}),
        ("stage1", "--data", f"{_URL}/clips", *steps),
        trained,
    )
    yield Phase(
        "stage2",
        _write_stage2_inputs,
        ("stage2", "--data", f"{_URL}/episodes", "--video-model", f"{_URL}/video-model", *steps),
        trained,
    )
    yield Phase(
        "evaluate",
        lambda bucket: write_policy(bucket / "policy"),
        (
            "evaluate", "--policy", f"{_URL}/policy/policy", "--video-model", f"{_URL}/policy/stage1",
            "--tasks", "handle-press-v3", "drawer-close-v3", "--episodes", str(size), "--max-steps", "60",
            "--image-size", "32", "--videos", str(size), "--video-stride", "10",
        ),
        ("episodes/*.parquet",),
    )  # fmt: skip


def _write_stage2_inputs(bucket: Path) -> None:
    codec = write_video_model(bucket / "video-model")
    write_episode_dataset(str(bucket / "episodes"), {"drawers": 4, "blocks": 3}, latent_codec=codec, num_frames=4)
