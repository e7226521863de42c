"""Does a small video model, trained from scratch on a CPU, foresee more than a copy of the first frame?

    python benchmarks/prediction.py [--bridge FOLDER] [--metaworld FOLDER] [--preset small] [--json]
                                    [options of jobs/stage1.py]

- `--bridge`: a folder in the VPP authors' layout with latents of the SVD VAE. Its few clips are preprocessed, learned
  and predicted again: can the model hold them at all?
- `--metaworld`: an output of `jobs/preprocess.py` with latents. A fifth of its episodes is held out and predicted.

Each part runs the project's own jobs (`preprocess`, `stage1`) with the preset's settings, then predicts with 30 Euler
steps and with one step, whose features a policy reads. Told is by how many decibels the mean squared error of the
latents is smaller than that of a copy of the first frame: over whole frames, and over the 5 % of positions that differ
most from the first frame in the truth. Runs are kept under `--work`; the same command goes on with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vpp.data.clip_index import ClipIndex
from vpp.data.clip_reader import read_clips
from vpp.video.denoiser import VideoDenoiser
from vpp.video.metrics import compare_with_copy
from vpp.video.objective import sample_generator
from vpp.video.predict import one_step_latents, predict_latents
from vpp.video.svd import load_denoiser

JOBS = Path(__file__).resolve().parents[1] / "jobs"
HELD_OUT = 0.2
NUM_FRAMES_GIVEN = 1
FRAMES = {"2-16": slice(NUM_FRAMES_GIVEN, None), "8-16": slice(7, None)}

Predict = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
"""First frames' latents `[1, 4, h, w]`, captions `[1, 20, 512]` and a generator to latents `[1, T, 4, h, w]`."""


def preprocess_bridge(folder: str, output: Path) -> None:
    """Makes clips of the layout's episodes, each spread evenly to 16 frames, with the latents that they bring."""
    source = f"bridge=vpp-layout:{folder}"
    _run("preprocess", "--sources", source, "--output", output, "--products", "clips", "--text-encoder", "tiny")


def train(preset: str, data: str, run: Path, held_out: float, options: list[str]) -> float:
    """Trains with the preset's settings, or goes on with it; returns the seconds that it took."""
    started = time.monotonic()
    fraction = ("--loading.validation-fraction", held_out)
    _run("stage1", "--preset", preset, "--data", data, "--output", run, *fraction, *options)
    return time.monotonic() - started


def judge(model: Path, index: ClipIndex, rows: np.ndarray) -> list[dict[str, float | str]]:
    """Predicts clips in each way, always with the same noise; a row for each way and range of frames."""
    denoiser = load_denoiser(str(model))[0].eval()
    ways = _ways(denoiser)
    latents, predicted = [], {way: [] for way in ways}  # type: ignore[var-annotated]
    for row in rows.tolist():
        clip = read_clips(index, np.array([row]), "latents")
        assert clip.latents is not None
        truth, text = clip.latents.float(), clip.text.float()
        latents.append(truth)
        for way, predict in ways.items():
            generator = sample_generator(0, row, 0, "prediction")
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                predicted[way].append(predict(truth[:, 0], text, generator).float())
    found: list[dict[str, float | str]] = []
    for way, clips in predicted.items():
        for frames, chosen in FRAMES.items():
            compared = compare_with_copy(torch.cat(clips), torch.cat(latents), frames=chosen)
            moving, whole = round(compared.moving_gain_db, 2), round(compared.gain_db, 2)
            found.append({"way": way, "frames": frames, "moving_gain_db": moving, "gain_db": whole})
    return found


def _ways(denoiser: VideoDenoiser) -> dict[str, Predict]:
    def euler(first_frame: torch.Tensor, text: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return predict_latents(denoiser, first_frame, text, guidance=(1.0, 1.0), generator=generator)

    def one_step(sigma: float) -> Predict:
        return lambda first_frame, text, generator: one_step_latents(
            denoiser, first_frame, text, sigma=sigma, generator=generator
        )

    return {"30 steps": euler, "1 step from 80": one_step(80.0), "1 step from 700": one_step(700.0)}


def _run(job: str, *arguments: object) -> None:
    command = [sys.executable, str(JOBS / f"{job}.py"), *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _spread(rows: np.ndarray, number: int) -> np.ndarray:
    places = np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(np.int64)
    return np.asarray(rows[places])


def main() -> None:
    """Trains, judges, prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", default="")
    parser.add_argument("--metaworld", default="")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--clips", type=int, default=24, help="clips that are predicted, spread evenly")
    parser.add_argument("--work", type=Path, default=Path("out/prediction"))
    parser.add_argument("--json", action="store_true")
    arguments, options = parser.parse_known_args()
    if not arguments.bridge and not arguments.metaworld:
        parser.error("expected --bridge or --metaworld")
    parts: dict[str, tuple[str, float]] = {}
    if arguments.bridge:
        data = arguments.work / "bridge-data"
        preprocess_bridge(arguments.bridge, data)
        parts["bridge"] = (str(data), 0.0)
    if arguments.metaworld:
        parts["metaworld"] = (arguments.metaworld, HELD_OUT)
    results = []
    for name, (data_url, held_out) in parts.items():
        run = arguments.work / f"{name}-{arguments.preset}"
        seconds = train(arguments.preset, data_url, run, held_out, options)
        index = ClipIndex.read(data_url)
        split = index.split_validation(held_out)
        rows = _spread(split.validation if held_out else split.train, arguments.clips)
        results += [
            {"data": name, "clips": len(rows), "training_s": round(seconds), **row}
            for row in judge(run / "model", index, rows)
        ]
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"preset {arguments.preset}; dB below the error of a copy of the first frame\n")
    print("| data | clips | training | way | frames | where the truth moves | whole frames |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in results:
        print(
            f"| {row['data']} | {row['clips']} | {row['training_s']} s | {row['way']} | {row['frames']} | "
            f"{row['moving_gain_db']:+.1f} | {row['gain_db']:+.1f} |"
        )


if __name__ == "__main__":
    main()
