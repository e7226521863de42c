"""The folder of a run as the jobs leave it, small, written with their own writers; its texts come from a hostile world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from small_dataset import clip_video, write_part, write_shard

from vpp.sim.episode_video import EpisodeVideo
from vpp.sim.evaluation_rows import Row, summarise, video_path, write_json, write_rows
from vpp.train.run_log import RunLog, StepRecord
from vpp.video.video_strip import film_strip_png, strip_mp4

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> & </p></style>"


def write_run(root: Path) -> None:
    """A dataset, both trainings and three evaluations; their folders' names mean nothing."""
    write_dataset(root)
    write_training(root / "first #1", {"preset": "tiny", "train": {"steps": 40, "batch_size": 2}})
    write_previews(root / "first #1")
    write_training(root / "b/second", {"video_model": "x", "preset": "tiny", "train": {"steps": 40, "batch_size": 2}})
    write_evaluation(root / "try", {"policy": "/b/second/policy", "instructions": "own"}, [True, False])
    write_evaluation(root / "try two", {"policy": "/b/second/policy", "instructions": "next"}, [False, False])
    write_evaluation(root / "best", {"policy": "expert", "instructions": "own"}, [True, True])


def write_dataset(root: Path) -> None:
    columns = {"camera": "top", "caption": HOSTILE, "start_frame": 0, "end_frame": 16, "source_fps": 10.0}
    columns |= {"text_encoder": "tiny stand-in", "text_encoder_is_stand_in": True}
    clips = {f"{number:020x}": (columns, {"mp4": clip_video(number * 20)}) for number in range(3)}
    write_shard(str(root), "d", "000000", clips)
    row = {"clip_id": "x", "status": "rejected", "reason": "decode_error", "detail": HOSTILE, "caption": HOSTILE}
    write_part(str(root), "clips", "d", "plan-000000", [row])
    this_run = {"shards": 1, "written": 3, "seconds": 1.5, "num_bytes": 2_000_000, "total_seconds": 4.25}
    write_json(str(root / "summary.json"), {"datasets": {}, "this_run": this_run, "settings": {"sources": [HOSTILE]}})


def write_training(root: Path, settings: dict) -> None:
    write_json(str(root / "run.json"), {"settings": settings, "fixed": {}, "commit": "abc123"})
    log = RunLog(str(root), 0)
    for step in range(40):
        loss = 2.0 / (step + 1)
        log.add_steps([StepRecord(step, loss, 1.0, 1e-3, ["c"], ["d"], np.ones(1), np.full(1, loss))])
    by_frame = {f"val_{name}_by_frame/{frame:02}": 30.0 - frame for name in ("psnr", "psnr_copy") for frame in (1, 2)}
    judged = {"val/psnr": 21.5, "val/psnr_copy": 20.0} if "video_model" not in settings else {"val/action_mse": 0.25}
    for step in (20, 40):
        log.add_curves(step, {"speed/step_s": 0.5, "val/loss": 1.0 / step, **by_frame, **judged})
    log.flush()
    log.close()


def write_previews(root: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (16, 64, 64, 3), np.uint8)
    folder = root / "previews/step_00000040"
    folder.mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(strip_mp4(frames, frames, "open the drawer"))
    (folder / "clip.png").write_bytes(film_strip_png(frames, frames, "open the drawer"))


def write_evaluation(root: Path, record: dict, outcomes: list[bool]) -> None:
    rows = []
    for number, success in enumerate(outcomes):
        task = f"task-{number} {HOSTILE}"
        row = Row(number, 0, task, None, HOSTILE, 1, success, 7, 0.5, 1, None, video_path(number))
        write_rows(str(root), [row])
        rows.append(row)
    film = EpisodeVideo(10.0)
    for number in range(8):
        film.add(np.full((64, 64, 3), 30 * number, np.uint8))
    (root / "videos").mkdir(parents=True)
    (root / video_path(0)).write_bytes(film.finish())
    write_json(str(root / "summary.json"), summarise(rows, [row.task for row in rows]))
    (root / "evaluation.json").write_text(json.dumps({"max_steps": 500, **record}))
