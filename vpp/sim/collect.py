"""Records demonstrations in parallel with Ray and writes them as one LeRobot dataset; here only this file knows Ray.

Each episode is kept in a file below `<output>/recorded/` until the dataset is complete, so a run that was killed
continues, and its dataset has the bytes of an uninterrupted run. A complete dataset is found at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import ray

from runtime.log_lines import progress_bar
from runtime.ray_cluster import find_cluster, start_ray
from schemas.errors import UsageError
from schemas.storage import (
    check_writable,
    exists,
    filesystem,
    join,
    list_files,
    read_bytes,
    remove_partial_files,
    write_bytes,
)
from vpp.sim.demonstrations import episode_seed
from vpp.sim.episode_video import ENCODER
from vpp.sim.headless import choose_renderer
from vpp.sim.lerobot_writer import LeRobotWriter, is_complete
from vpp.sim.metaworld import (
    ACTION_NAMES,
    CAMERAS,
    CONTROL_HZ,
    PROPRIO_NAMES,
    environment,
)
from vpp.sim.metaworld_tasks import check_task
from vpp.sim.recorded import load, record, save

COLLECTION = "meta/collection.json"
"""What was asked for, and how many episodes each task attempted, solved and failed."""

_MAX_EPISODES_PER_RAY_TASK = 8  # shares the making of an environment, about as long as an episode


@dataclass(frozen=True)
class CollectSettings:
    """Records demonstrations of MetaWorld's scripted experts as a LeRobot v3.0 dataset.

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Attributes:
        output: URL of the folder to write to. A run under the same output continues where the last one stopped.
        tasks: MetaWorld's names of tasks, such as drawer-open-v3.
        episodes_per_task: Episodes to try for each task; those that fail are counted and not kept.
        cameras: MetaWorld's names of cameras.
        image_size: Height and width of the pictures in pixels.
        steps_after_success: How long an episode goes on once the task is solved.
        action_noise: Standard deviation of Gaussian noise added to the actions that are executed, in [-1, 1]; those
            that are recorded are the expert's own.
        seed: Decides where objects and goals lie in every episode, and the noise.
        num_workers: Episodes recorded at the same time, one CPU each; 0 for as many as there are CPUs on nodes
            without GPUs.
    """

    output: str = ""
    tasks: tuple[str, ...] = ("button-press-topdown-v3", "drawer-open-v3", "window-open-v3")
    episodes_per_task: int = 10
    cameras: tuple[str, ...] = ("corner2",)
    image_size: int = 256
    steps_after_success: int = 10
    action_noise: float = 0.0
    seed: int = 0
    num_workers: int = 0


def collect(settings: CollectSettings) -> dict[str, Any]:
    """Runs the job; returns what it writes to `<output>/meta/collection.json`.

    Raises:
        UsageError: If a setting is wrong, the output holds something else, or no expert solved its task.
    """
    _check(settings)
    request = _request(settings)
    if is_complete(settings.output):
        collected = _find_collected(settings, request)
        _remove_recorded(settings.output)  # a run that was killed between the last two steps left it
        return collected
    _claim(settings.output, request)
    recorded = set(list_files(join(settings.output, "recorded"), ".npz"))
    episodes = [(task, number) for task in settings.tasks for number in range(settings.episodes_per_task)]
    missing = [episode for episode in episodes if _name(*episode) not in recorded]
    if missing:
        _record_with_ray(settings, missing)
    collected = _assemble(settings, request)
    _remove_recorded(settings.output)
    return collected


def _check(settings: CollectSettings) -> None:
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    for task in settings.tasks:
        check_task(task)
    if not settings.tasks or len(set(settings.tasks)) < len(settings.tasks):
        raise UsageError(f"--tasks: expected different tasks, found {', '.join(settings.tasks) or 'none'}")
    unknown = [camera for camera in settings.cameras if camera not in CAMERAS]
    if unknown or not settings.cameras or len(set(settings.cameras)) < len(settings.cameras):
        found = ", ".join(unknown or settings.cameras) or "none"
        raise UsageError(f"--cameras: expected different ones of {', '.join(CAMERAS)}, found {found}")
    if settings.image_size < 16 or settings.image_size % 2:
        raise UsageError(f"--image-size: expected an even number of at least 16, found {settings.image_size}")
    if not 0 <= settings.action_noise < float("inf"):
        raise UsageError(f"--action-noise: expected a number of at least 0, found {settings.action_noise}")
    for name, least in (("episodes_per_task", 1), ("steps_after_success", 0), ("seed", 0), ("num_workers", 0)):
        if getattr(settings, name) < least:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: expected at least {least}, found {getattr(settings, name)}")


def _request(settings: CollectSettings) -> dict[str, Any]:
    """All that the recorded episodes depend on."""
    chosen = {name: value for name, value in asdict(settings).items() if name not in ("output", "num_workers")}
    versions = {package: version(package) for package in ("metaworld", "mujoco")} | {"encoder": ENCODER}
    request: dict[str, Any] = json.loads(json.dumps({"settings": chosen, "versions": versions}))
    return request


def _find_collected(settings: CollectSettings, request: dict[str, Any]) -> dict[str, Any]:
    url = join(settings.output, COLLECTION)
    if not exists(url):
        raise UsageError(
            f"--output {settings.output}: holds a dataset that this job did not write; name another folder"
        )
    collected: dict[str, Any] = json.loads(read_bytes(url))
    _compare(settings.output, {"settings": collected["settings"]}, {"settings": request["settings"]})
    return collected


def _claim(output: str, request: dict[str, Any]) -> None:
    """Writes what the episodes to be recorded depend on, or makes sure that those recorded depend on the same."""
    check_writable(output)
    remove_partial_files(output)
    url = join(output, "recorded", "request.json")
    if exists(url):
        _compare(output, json.loads(read_bytes(url)), request)
    else:
        write_bytes(url, json.dumps(request, indent=1).encode())


def _compare(output: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for section, values in expected.items():
        # a setting that was not there yet had its default's effect
        known = {name: found[section].get(name, getattr(CollectSettings, name, None)) for name in values}
        different = [name for name, value in values.items() if known[name] != value]
        if different:
            was = ", ".join(f"{name} {known[name]!r}" for name in different)
            now = ", ".join(f"{name} {values[name]!r}" for name in different)
            raise UsageError(f"--output {output}: holds episodes with {was}; now {now}; name another folder")


# --- recording -------------------------------------------------------------------------------------


def _record_with_ray(settings: CollectSettings, missing: list[tuple[str, int]]) -> None:
    """Records episodes with Ray, each kept as soon as it ends."""
    choose_renderer()  # here, so that a missing library is told in one line
    start_ray()
    cluster = find_cluster()
    cluster.check_holds("recordings", {"CPU": 1}, 1, "start Ray with --num-cpus")
    num_workers = settings.num_workers or cluster.plain_cpus()
    size = max(1, min(_MAX_EPISODES_PER_RAY_TASK, len(missing) // (2 * num_workers)))
    batches = _batches(missing, size)
    remote = ray.remote(num_cpus=1, max_retries=3)(record_episodes)
    running: set[Any] = set()
    with progress_bar("record", len(missing), "episode") as bar:
        for task, numbers in batches:
            running.add(remote.remote(settings, task, numbers))
            if len(running) >= num_workers:
                running = _wait(running, bar)
        while running:
            running = _wait(running, bar)


def _wait(running: set[Any], bar: Any) -> set[Any]:
    done, pending = ray.wait(list(running))
    bar.update(sum(ray.get(done)))
    return set(pending)


def _batches(episodes: list[tuple[str, int]], size: int) -> Iterator[tuple[str, list[int]]]:
    """Episodes of one task at a time."""
    by_task: dict[str, list[int]] = {}
    for task, number in episodes:
        by_task.setdefault(task, []).append(number)
    for task, numbers in by_task.items():
        for first in range(0, len(numbers), size):
            yield task, numbers[first : first + size]


def record_episodes(settings: CollectSettings, task: str, numbers: list[int]) -> int:
    """Records episodes of one task below `<output>/recorded`, without Ray; returns how many. It may be run twice."""
    seeds = [episode_seed(settings.seed, task, number) for number in numbers]
    with environment(task, seeds[0], settings.cameras, settings.image_size) as env:
        for number, seed in zip(numbers, seeds, strict=True):
            episode = record(env, seed, settings.steps_after_success, settings.action_noise)
            save(_url(settings.output, task, number), episode)
    return len(numbers)


def _name(task: str, number: int) -> str:
    return f"{task}/{number:06d}.npz"


def _url(output: str, task: str, number: int) -> str:
    return join(output, "recorded", _name(task, number))


# --- the dataset -----------------------------------------------------------------------------------


def _assemble(settings: CollectSettings, request: dict[str, Any]) -> dict[str, Any]:
    """Writes the dataset of the episodes that solved their task, one read at a time."""
    writer = LeRobotWriter(settings.output, CONTROL_HZ, "metaworld_sawyer", ACTION_NAMES, PROPRIO_NAMES)
    tasks: dict[str, dict[str, Any]] = {}
    for task in settings.tasks:
        seeds: dict[bool, list[int]] = {True: [], False: []}
        for number in range(settings.episodes_per_task):
            episode = load(_url(settings.output, task, number))
            seeds[episode is not None].append(episode_seed(settings.seed, task, number))
            if episode:
                writer.add(episode)
        tasks[task] = {
            "attempted": settings.episodes_per_task,
            "succeeded": len(seeds[True]),
            "failed": len(seeds[False]),
            "seeds": seeds[True],
            "failed_seeds": seeds[False],
        }
    if not any(task["succeeded"] for task in tasks.values()):
        raise UsageError(
            f"--tasks: no expert of {', '.join(settings.tasks)} solved its task; there is nothing to write"
        )
    collected = {**request, "tasks": tasks}
    write_bytes(join(settings.output, COLLECTION), json.dumps(collected, indent=1).encode())
    writer.finish()
    return collected


def _remove_recorded(output: str) -> None:
    url = join(output, "recorded")
    if exists(url):
        fs, path = filesystem(url)
        fs.rm(path, recursive=True)
