"""Records demonstrations in parallel with Ray and writes them as one LeRobot dataset; the only file of `vpp/sim`
that knows Ray here.

Each episode is one task, whose result is kept in a file below `<output>/recorded/` until the dataset is complete; so
a run that was killed continues, and a complete dataset is found in no time.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import ray
from tqdm import tqdm

from schemas.errors import UsageError
from schemas.storage import check_writable, exists, filesystem, in_memory, join, read_bytes, write_bytes
from vpp.sim.demonstrations import demonstrate, episode_seed
from vpp.sim.lerobot_writer import RecordedEpisode, encode_pictures, is_complete, picture_statistics, write_dataset
from vpp.sim.metaworld import CAMERAS, CONTROL_HZ, INSTRUCTIONS, check_task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectSettings:
    """Records demonstrations of MetaWorld's scripted experts as a LeRobot v3.0 dataset.

    Attributes:
        output: URL of the folder to write to. A run under the same output continues where the last one stopped.
        tasks: MetaWorld's names of tasks, such as drawer-open-v3.
        episodes_per_task: Episodes to try for each task; those that fail are counted and not kept.
        cameras: MetaWorld's names of cameras.
        image_size: Height and width of the pictures in pixels.
        steps_after_success: How long an episode goes on once the task is solved.
        seed: Decides where objects and goals lie in every episode.
    """

    output: str = ""
    tasks: tuple[str, ...] = ("button-press-topdown-v3", "drawer-open-v3", "window-open-v3")
    episodes_per_task: int = 10
    cameras: tuple[str, ...] = ("corner2",)
    image_size: int = 256
    steps_after_success: int = 10
    seed: int = 0


def collect(settings: CollectSettings) -> dict[str, Any]:
    """Runs the job; returns, and writes to `<output>/meta/collection.json`, how many episodes each task tried and kept.

    Raises:
        UsageError: If a setting is wrong, or the output holds a collection with other settings.
    """
    _check(settings)
    record_url = join(settings.output, "meta", "collection.json")
    request = {name: value for name, value in asdict(settings).items() if name != "output"}
    request = json.loads(json.dumps(request))
    if exists(record_url):
        record: dict[str, Any] = json.loads(read_bytes(record_url))
        if record["settings"] != request:
            raise UsageError(
                f"--output {settings.output}: holds a collection with other settings: {record['settings']}"
            )
        if is_complete(settings.output):
            return record
    check_writable(settings.output)
    wanted = [(task, number) for task in settings.tasks for number in range(settings.episodes_per_task)]
    missing = [entry for entry in wanted if not exists(_recorded_url(settings.output, *entry))]
    if missing:
        _record(settings, missing)
    record = {
        "settings": request,
        "tasks": _count(settings),
        "versions": {p: version(p) for p in ("metaworld", "mujoco")},
    }
    write_bytes(record_url, json.dumps(record, indent=1).encode())
    if not any(counts["kept"] for counts in record["tasks"].values()):
        raise UsageError(f"no expert of {', '.join(settings.tasks)} solved its task; there is nothing to write")
    write_dataset(settings.output, _successful(settings.output, wanted), CONTROL_HZ, "metaworld sawyer")
    fs, path = filesystem(join(settings.output, "recorded"))
    fs.rm(path, recursive=True)
    return record


def _check(settings: CollectSettings) -> None:
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    if not settings.tasks or settings.episodes_per_task < 1:
        raise UsageError("expected at least one of --tasks and --episodes-per-task of at least 1")
    for task in settings.tasks:
        check_task(task)
    unknown = [camera for camera in settings.cameras if camera not in CAMERAS]
    if unknown or not settings.cameras:
        raise UsageError(f"--cameras: expected some of {', '.join(CAMERAS)}, found {', '.join(unknown) or 'none'}")
    if settings.image_size < 16 or settings.image_size % 2:
        raise UsageError(f"--image-size: expected an even number of at least 16, found {settings.image_size}")


def _record(settings: CollectSettings, missing: list[tuple[str, int]]) -> None:
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or "local"
        options = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    task = ray.remote(num_cpus=1, max_retries=3)(_record_one)
    waiting = {task.remote(settings, *entry) for entry in missing}
    quiet = not sys.stderr.isatty()
    with tqdm(desc="record", total=len(missing), unit=" episode", mininterval=10 if quiet else 0.2) as bar:
        while waiting:
            done, pending = ray.wait(list(waiting))
            ray.get(done)
            waiting = set(pending)
            bar.update(len(done))


def _recorded_url(output: str, task: str, number: int) -> str:
    return join(output, "recorded", task, f"{number:06d}.npz")


def _record_one(settings: CollectSettings, task: str, number: int) -> None:
    seed = episode_seed(settings.seed, task, number)
    shown = demonstrate(task, seed, settings.cameras, settings.image_size, settings.steps_after_success)
    videos = {camera: encode_pictures(pictures, CONTROL_HZ) for camera, pictures in shown.pictures.items()}
    statistics = {camera: picture_statistics(pictures) for camera, pictures in shown.pictures.items()}
    arrays = {
        "success": np.array(shown.success),
        "actions": shown.actions,
        "states": shown.states,
        "statistics": np.frombuffer(json.dumps(statistics).encode(), np.uint8),
        **{f"video.{camera}": np.frombuffer(video, np.uint8) for camera, video in videos.items()},
    }
    content = in_memory(lambda handle: np.savez(handle, **arrays))  # type: ignore[arg-type]
    write_bytes(_recorded_url(settings.output, task, number), content)


def _read(output: str, task: str, number: int) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(read_bytes(_recorded_url(output, task, number))), allow_pickle=False) as arrays:
        return dict(arrays)


def _count(settings: CollectSettings) -> dict[str, dict[str, int]]:
    counts = {}
    for task in settings.tasks:
        successes = [bool(_read(settings.output, task, n)["success"]) for n in range(settings.episodes_per_task)]
        counts[task] = {"tried": len(successes), "kept": sum(successes), "failed": len(successes) - sum(successes)}
    return counts


def _successful(output: str, wanted: list[tuple[str, int]]) -> Iterator[RecordedEpisode]:
    for task, number in wanted:
        arrays = _read(output, task, number)
        if arrays["success"]:
            yield RecordedEpisode(
                task=INSTRUCTIONS[task],
                videos={name[6:]: array.tobytes() for name, array in arrays.items() if name.startswith("video.")},
                actions=arrays["actions"],
                states=arrays["states"],
                picture_statistics=json.loads(arrays["statistics"].tobytes()),
            )
