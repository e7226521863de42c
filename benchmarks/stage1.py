"""Stage 1 against a plain loop that does what the published implementation does: loading, training step, memory.

    python benchmarks/stage1.py [--json] [--latent-size 32] [--precision bf16] [--batch 6] [--steps 4] [--rounds 7]

- ours: `vpp.data.ClipLoader` out of tar shards by byte range, `vpp.train.engine.train` with everything that it does
  (averaged weights, metrics and the record of each step) but checkpoints and validation
- plain: arXiv 2412.14803's public code (`step1_train_svd.py`, `dataset_mix.py`): for each sample, in the training
  process (its loader ignores its worker count), the episode's annotation as JSON and the latents of the whole episode
  from a `.pt`, of which 16 frames are kept; AdamW with a group for each tensor; `.item()` on each loss; no average

Both use the same model (preset `tiny`), objective, precision, batch and clips, in one process on one core, and take
turns: step by step in training, epoch by epoch in loading. Captions are embedded ahead for both, and the plain side has
them in memory; the published code runs CLIP's text encoder in each step, which is not counted. With `bf16` much of our
lead is attention's arithmetic, which differs on CPUs only (`vpp.train.arithmetic`); `fp32` shows the rest.

Loading is measured with latents as published (`[40, 4, 32, 32]`, float32, and an annotation of about 20 kB with actions
and states as Bridge's) out of the page cache; what a disk adds goes by bytes, which are told. Our loader gives float16,
as stored; widening it is part of the step. CPU time is that of the process with its reading threads: where others use
the machine it varies less than the clock. Memory is the peak of a new process for each side, and our share of time
spent waiting for data is from there too, where nothing is read in the other's turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.objective import Draws, ObjectiveSettings, video_loss
from vpp.video.plane_convolution import use_plane_convolutions
from vpp.video.svd import unet_from_scratch

LEARNING_RATE = 5e-6


def new_model() -> VideoDenoiser:
    """The same weights for both; without plane convolutions bfloat16 gradients are wrong on some CPUs."""
    unet = unet_from_scratch("tiny")
    use_plane_convolutions(unet)
    return VideoDenoiser(unet, DenoiserConfig())


# --- plain -------------------------------------------------------------------------------------------------


class EpisodeFiles(Dataset):
    """One annotation and one file of latents for each episode, opened for each sample."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.samples = folder, []
        for path in sorted((folder / "annotation").iterdir()):
            num_frames = len(json.loads(path.read_text())["state"])
            self.samples.append((path, np.linspace(0, num_frames - 1, 16).astype(int).tolist()))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> dict[str, Any]:
        path, frames = self.samples[number]
        annotation = json.loads(path.read_text())
        with (self.folder / annotation["latent_videos"][0]["latent_video_path"]).open("rb") as file:
            latents = torch.load(file)
        return {"text": annotation["texts"][0], "video": latents[frames].float()}


def plain_batches(folder: Path, batch: int) -> DataLoader:
    """Batches of an epoch, loaded when they are asked for."""
    return DataLoader(EpisodeFiles(folder), batch_size=batch, shuffle=True)


def plain_steps(folder: Path, batch: int, precision: str) -> Generator[float]:
    """Trains without an end; yields the loss after each step."""
    model = new_model()
    groups = [{"name": name, "params": tensor, "lr": LEARNING_RATE} for name, tensor in model.named_parameters()]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=0.0)
    embeddings = torch.load(folder / "text.pt")
    batches = plain_batches(folder, batch)
    while True:
        for samples in batches:
            latents = samples["video"]
            text = torch.stack([embeddings[caption] for caption in samples["text"]]).float()
            num = len(latents)
            draws = Draws(torch.randn_like(latents), torch.randn(num), torch.rand(num), torch.zeros(num))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = video_loss(model, latents, text, draws, ObjectiveSettings())[0].mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            value = loss.item()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield value


# --- ours; imported where it is used, so that the plain side's memory has none of it ------------------------


class OurBatches:
    """Batches of an epoch, read ahead in threads."""

    def __init__(self, folder: Path, batch: int) -> None:
        from vpp.data.clip_index import ClipIndex
        from vpp.data.settings import DataSettings
        from vpp.data.streams import training_order

        self.index = ClipIndex.read(str(folder / "shards"))
        self.num_steps = len(self.index) // batch
        self.order = training_order(self.index, np.arange(len(self.index)), DataSettings(), 0, batch)

    def __iter__(self) -> Iterator[torch.Tensor]:
        from vpp.data.loader import ClipLoader

        with ClipLoader(self.index, self.order, representation="latents", num_steps=self.num_steps) as loader:
            for clips in loader:
                assert clips.latents is not None
                yield clips.latents


def train_ours(
    folder: Path, run: Path, batch: int, precision: str, num_steps: int, plain: Iterator[float] | None = None
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Trains with the engine.

    Args:
        folder: The data.
        run: A new run.
        batch: Samples of a step.
        precision: `bf16` or `fp32`.
        num_steps: How many are measured; two more are made, the first and the last.
        plain: Makes one step of the plain loop before each of ours.

    Returns:
        Seconds of our steps and of the plain ones, each with the clock and the CPU's, `[num_steps, 2]`; and the metrics
        of our steps, with the peak memory in MB.
    """
    from vpp.data.clip_index import ClipIndex
    from vpp.data.settings import DataSettings
    from vpp.train.engine import TrainSettings, train
    from vpp.train.optimizer import OptimizerSettings
    from vpp.train.video_data import VideoData
    from vpp.train.video_task import VideoTask
    from vpp.train.worker import Worker

    ours, theirs, metrics = [], [], []

    class TakingTurns(VideoTask):
        def shares(self, first_step: int) -> Generator[Any]:
            with contextlib.closing(super().shares(first_step)) as shares:
                while True:
                    began = now()
                    if plain is not None:
                        next(plain)
                        theirs.append(now() - began)
                    began = now()
                    yield next(shares)
                    ours.append(now() - began)  # all that the loop did until it asked for the next share

    settings = TrainSettings(
        steps=num_steps + 2, batch_size=batch, micro_batch_size=batch, precision=precision,
        gradient_checkpointing=False, log_every=1, checkpoint_every=num_steps + 3, validate_every=0,
        optimizer=OptimizerSettings(LEARNING_RATE),
    )  # fmt: skip
    worker = Worker(progress=lambda step, of_step: metrics.append({**of_step, "peak_mb": measure.peak_rss_mb()}))
    index = ClipIndex.read(str(folder / "shards"))
    data = VideoData(index, np.arange(len(index)), np.arange(0), "latents", "random", "random")
    task = TakingTurns(
        new_model(),
        None,
        None,
        data,
        DataSettings(),
        ObjectiveSettings(),
        None,
        seed=0,
        batch_size=batch,
        worker=worker,
    )
    train(task, settings, worker, str(run))
    return np.array(ours[1:]), np.array(theirs[1:-1]), metrics


def now() -> np.ndarray:
    """Seconds of the clock, and of this process on the CPU."""
    return np.array([time.perf_counter(), time.process_time()])


# --- comparisons ---------------------------------------------------------------------------------------------


def compare_loaders(folder: Path, batch: int, rounds: int) -> dict[str, float]:
    """Samples a second of the loaders alone, epoch by epoch, of the same clips."""
    seconds, sums = {"ours": [], "plain": []}, {}
    files, shards = plain_batches(folder, batch), OurBatches(folder, batch)
    for number in range(rounds + 1):
        for side in seconds:
            began, total = now(), 0.0
            batches = shards if side == "ours" else (samples["video"] for samples in files)
            for latents in batches:
                total += float(latents[:, -1, -1, -1, -1].double().sum())  # one number a clip takes no time
            if number:  # the first is not counted
                seconds[side].append(now() - began)
            sums[side] = total
        assert abs(sums["ours"] - sums["plain"]) < 1e-6 * len(files.dataset), sums
    return ratios("loader", seconds, per_sample=len(files.dataset)) | {
        "loader_ours_bytes_per_sample": 16 * 4 * 32 * 32 * 2 + 20 * 512 * 2,
        "loader_plain_bytes_per_sample": float(np.mean([size(folder, path) for path, _ in files.dataset.samples])),
    }


def size(folder: Path, annotation: Path) -> int:
    """Bytes that the plain side reads for a sample."""
    return annotation.stat().st_size + (folder / "latents" / f"{annotation.stem}.pt").stat().st_size


def compare_steps(folder: Path, batch: int, precision: str, num_steps: int) -> dict[str, float]:
    """Seconds of a training step, step by step."""
    from vpp.train.ema import Ema

    plain = plain_steps(folder, batch, precision)
    ours, theirs, _ = train_ours(folder, folder / "run", batch, precision, num_steps, plain)
    model, seconds = new_model(), []
    ema = Ema(model, 0.9999)
    for number in range(20):
        began = now()
        ema.update(model, number)
        seconds.append(now() - began)
    return ratios("step", {"ours": ours, "plain": theirs}) | {"step_ours_ema_s": float(np.median(seconds, axis=0)[0])}


def ratios(name: str, seconds: dict[str, Any], per_sample: int = 0) -> dict[str, float]:
    """Medians of both sides, and medians and quartiles of plain : ours of each round."""
    ours, plain = np.array(seconds["ours"]), np.array(seconds["plain"])
    figures = {}
    for side, values in {"ours": ours, "plain": plain}.items():
        clock, cpu = np.median(values, axis=0).tolist()
        if per_sample:
            figures |= {f"{name}_{side}_samples_per_s": per_sample / clock}
            figures |= {f"{name}_{side}_samples_per_cpu_s": per_sample / cpu}
        else:
            figures |= {f"{name}_{side}_s": clock, f"{name}_{side}_cpu_s": cpu}
    quartiles = np.percentile(plain / ours, [25, 50, 75], axis=0)
    return figures | {
        f"ratio_{name}": float(quartiles[1, 0]),
        f"ratio_{name}_quartiles": [round(value, 2) for value in quartiles[[0, 2], 0].tolist()],
        f"ratio_{name}_cpu": float(quartiles[1, 1]),
    }


def alone(side: str, folder: Path, batch: int, precision: str, num_steps: int) -> dict[str, float]:
    """What a process that trains one side alone finds of itself; peaks are before the last checkpoint."""
    if side == "plain":
        steps = plain_steps(folder, batch, precision)
        for _ in range(num_steps + 2):
            next(steps)
        return {"peak_mb": measure.peak_rss_mb()}
    _, _, metrics = train_ours(folder, folder / "run_alone", batch, precision, num_steps)
    wait_s = sum(of_step["speed/data_wait_share"] * of_step["speed/step_s"] for of_step in metrics[1:])
    return {"peak_mb": metrics[-1]["peak_mb"], "wait": wait_s / sum(of["speed/step_s"] for of in metrics[1:])}


def compare_memory(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Peaks of a new process for each side."""
    found = {}
    for side in ("ours", "plain"):
        command = [
            sys.executable,
            __file__,
            "--side",
            side,
            "--folder",
            str(folder),
            "--steps",
            str(min(arguments.steps, 2)),
        ]
        command += ["--batch", str(arguments.batch), "--precision", arguments.precision]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[side] = json.loads(output.splitlines()[-1])
    return {
        "ours_peak_mb": found["ours"]["peak_mb"],
        "plain_peak_mb": found["plain"]["peak_mb"],
        "ratio_memory": found["ours"]["peak_mb"] / found["plain"]["peak_mb"],
        "data_wait_fraction": found["ours"]["wait"],
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--latent-size", type=int, choices=[8, 16, 32], default=32, help="of training: less is faster")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4, help="training steps measured of each side")
    parser.add_argument("--clips", type=int, default=1020, help="clips of an epoch of loading")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of loading measured of each side")
    parser.add_argument("--side", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    measure.pin_to_one_core()
    torch.set_num_threads(1)
    if arguments.side:
        batch, precision, num_steps = arguments.batch, arguments.precision, arguments.steps
        print(json.dumps(alone(arguments.side, arguments.folder, batch, precision, num_steps)))
        return
    from synthetic_clips import write_clips  # not in the memory of a side

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "loading", arguments.clips // arguments.batch * arguments.batch, 32)
        write_clips(folder / "training", 16 * arguments.batch, arguments.latent_size)
        memory = compare_memory(folder / "training", arguments)  # first, while this process is small
        figures = compare_loaders(folder / "loading", arguments.batch, arguments.rounds)
        figures |= compare_steps(folder / "training", arguments.batch, arguments.precision, arguments.steps) | memory
    measure.finish(figures, arguments.json)


if __name__ == "__main__":
    main()
