"""What an evaluation is asked for, and all that its episodes depend on, resolved before the first of them is run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from runtime.settings import commit, to_mapping
from schemas.errors import UsageError
from schemas.shard import FRAME_SIZE_PX
from schemas.storage import check_writable, exists, join, read_bytes, remove_partial_files
from vpp.sim.benchmark import Benchmark, Name, find_benchmark
from vpp.sim.evaluation_rows import EVALUATION, write_json

if TYPE_CHECKING:
    from vpp.policy.config import PolicyConfig  # torch takes seconds

EXPERT, RANDOM = "expert", "random"
_CPU_BATCH, _GPU_BATCH = 1, 16


@dataclass(frozen=True)
class EvaluateSettings:
    """Runs a policy in a benchmark, for example:

    python jobs/evaluate.py --policy out/stage2 --output out/evaluate

    python jobs/evaluate.py --policy expert --tasks easy --episodes 5 --output out/evaluate-expert

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Raises:
        ValueError: If a value is outside its range.
    """

    policy: str = ""
    """Folder or URL of jobs/stage2.py or of its policy; or `expert` or `random`, which need none."""
    output: str = ""
    """Folder or URL to write to. A run under the same output continues where the last one stopped."""
    benchmark: Name = "metaworld"
    """Where it is run: MetaWorld, or CALVIN's environment D."""
    tasks: tuple[str, ...] = ()
    """MetaWorld: names of tasks, `easy`, `middle`, `hard` or `all`; by default those of the demo. CALVIN: none; its
    chains say."""
    episodes: int = 0
    """MetaWorld: of each task, by default 20. CALVIN: the first chains, by default all 1,000."""
    seed: int = 0
    """Decides the policy's noise, and in MetaWorld where things lie; CALVIN's chains are always the official ones."""
    max_steps: int = 0
    """Actions that a task may take; 0 for the benchmark's official number."""
    num_executed: int = 0
    """Actions of a chunk that are executed before the policy looks again; 0 for what the policy says."""
    instructions: Literal["own", "next"] = "own"
    """`next`: tell the policy the instruction of the next task of the list, to see whether the text matters."""
    cameras: tuple[str, ...] = ()
    """What a video shows where the policy is `expert` or `random`; others see the cameras they were trained with."""
    image_size: int = 0
    """MetaWorld: height and width at which pictures are rendered, as the demonstrations were, before they become as
    large as the policy's frames; 0 for that size."""
    dataset: str = ""
    """Whose actions come out, where the policy was trained on several."""
    video_model: str = ""
    """Where the video model lies now; by default where it lay in training."""
    codec: str = ""
    """Likewise, the VAE."""
    text_encoder: str = ""
    """Likewise, CLIP's text model."""
    num_environments: int = 0
    """Episodes run at the same time, one CPU each; 0 for as many as there are CPUs, without a policy only on nodes
    without GPUs. Changes no result."""
    policy_batch: int = 0
    """Observations that the policy answers at a time; a batch that is not full is filled up, since the last bits of an
    answer depend on the size of its batch. 0: 1 on a CPU and 16 on a GPU."""
    policy_threads: int = 0
    """Batches that the policy answers at the same time on a CPU, one thread each; 0 for as many as there are CPUs.
    Changes no result."""
    videos: int = 0
    """Episodes of each task, or chains, of which a video is made."""
    video_stride: int = 4
    """Steps from one frame of a video to the next; with that of the training data a prediction keeps step."""
    foresee: int = 0
    """Denoising steps of what the video model foresees, shown beside the camera in videos; 0 does not show it. 30 are
    usual, and take their time."""
    max_attempts: int = 3
    """How often an episode is begun whose environment crashes, before it is written down as not run."""
    watchdog_minutes: float = 10.0
    """Time without an episode's end after which a warning says what is stuck; 0 never warns."""

    def __post_init__(self) -> None:
        least = {
            "episodes": 0, "seed": 0, "max_steps": 0, "num_executed": 0, "image_size": 0, "num_environments": 0,
            "policy_batch": 0, "policy_threads": 0, "max_attempts": 1, "videos": 0, "video_stride": 1, "foresee": 0,
        }  # fmt: skip
        for name, number in least.items():
            if getattr(self, name) < number:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option}: expected at least {number}, found {getattr(self, name)}")


@dataclass(frozen=True)
class Request:
    """An evaluation whose every default is resolved; goes to the processes that do the work.

    Attributes:
        settings: As the user gave them.
        policy: Its folder, `expert` or `random`.
        policy_hash: 16 hex digits of its weights and configuration; of the others the name.
        tasks: In order.
        told: Instruction by task.
        episodes: Of each task, or chains.
        max_steps: Of a task.
        num_executed: Of a chunk; 0 for all.
        cameras: Rendered ones.
        frame_size: Height and width in pixels of what is observed.
        policy_batch: Rows of a batch; 0 where no trained policy acts.
    """

    settings: EvaluateSettings
    policy: str
    policy_hash: str
    tasks: tuple[str, ...]
    told: Mapping[str, str]
    episodes: int
    max_steps: int
    num_executed: int
    cameras: tuple[str, ...]
    frame_size: int = FRAME_SIZE_PX
    policy_batch: int = 0

    @property
    def image_size(self) -> int:
        """Height and width at which pictures are rendered."""
        return self.settings.image_size or self.frame_size

    @property
    def needs_model(self) -> bool:
        """Whether a trained policy acts."""
        return self.policy not in (EXPERT, RANDOM)

    def with_batch(self, has_gpu: bool) -> Request:
        """The same with the size of batches, which depends on where the policy is."""
        size = self.settings.policy_batch or (_GPU_BATCH if has_gpu else _CPU_BATCH)
        return replace(self, policy_batch=size if self.needs_model else 0)

    def conditions(self, benchmark: Benchmark) -> dict[str, Any]:
        """All that the rows depend on, as plain values."""
        settings = self.settings
        packages = (*benchmark.packages, *(("torch",) if self.needs_model else ()))
        values = {
            "benchmark": benchmark.name,
            "policy": self.policy,
            "policy_hash": self.policy_hash,
            "dataset": settings.dataset,
            "tasks": self.tasks,
            "seed": settings.seed,
            "episodes": self.episodes,
            "max_steps": self.max_steps,
            "num_executed": self.num_executed,
            "instructions": settings.instructions,
            "told": dict(self.told),
            "cameras": self.cameras,
            "image_size": self.image_size,
            "policy_batch": self.policy_batch,
            "videos": settings.videos,
            "video_stride": settings.video_stride,
            "foresee": settings.foresee,
            "versions": {package: version(package) for package in packages},
        }
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def resolve(settings: EvaluateSettings) -> tuple[Request, Benchmark]:
    """Checks the settings against the benchmark and the policy, and fills in what follows from them.

    Raises:
        UsageError: If something is missing or does not fit.
    """
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    if not settings.policy:
        raise UsageError(f"--policy: expected a folder of jobs/stage2.py, {EXPERT} or {RANDOM}, found nothing")
    benchmark = find_benchmark(settings.benchmark)
    tasks = benchmark.expand(settings.tasks or benchmark.default_tasks)
    told = {task: benchmark.instructions[task] for task in tasks}
    if settings.instructions == "next":
        if len(tasks) < 2:
            raise UsageError(f"--instructions next: expected at least two --tasks, found {len(tasks)}")
        told = {task: benchmark.instructions[after] for task, after in zip(tasks, tasks[1:] + tasks[:1], strict=True)}
    policy, policy_hash, num_executed = settings.policy, settings.policy, settings.num_executed
    cameras, frame_size = settings.cameras or benchmark.default_cameras, FRAME_SIZE_PX
    if policy not in (EXPERT, RANDOM):
        policy, policy_hash, config = _look_at_policy(settings, benchmark)
        cameras, frame_size = config.cameras, config.frame_size
        num_executed = num_executed or config.sampler.num_executed
    elif settings.foresee:
        raise UsageError(f"--foresee: expected a policy with a video model, found {policy}")
    elif policy == EXPERT and not benchmark.has_expert:
        raise UsageError(f"--policy {EXPERT}: {benchmark.name} has no scripted experts; expected another policy")
    unknown = [camera for camera in cameras if camera not in benchmark.cameras]
    if unknown:
        raise UsageError(
            f"--policy {policy}: expected cameras of {benchmark.name} ({', '.join(benchmark.cameras)}), "
            f"found {', '.join(unknown)}"
        )
    episodes = settings.episodes or benchmark.default_episodes
    max_steps = settings.max_steps or benchmark.max_steps
    request = Request(
        settings, policy, policy_hash, tasks, told, episodes, max_steps, num_executed, cameras, frame_size
    )  # fmt: skip
    return request, benchmark


def _look_at_policy(settings: EvaluateSettings, benchmark: Benchmark) -> tuple[str, str, PolicyConfig]:
    """Folder, hash and configuration of a trained policy, without loading its models."""
    from vpp.policy.policy_folder import CONFIG, WEIGHTS, read_config  # torch takes seconds

    url = settings.policy
    if not exists(join(url, CONFIG)) and exists(join(url, "policy", CONFIG)):
        url = join(url, "policy")
    config = read_config(url)
    digest = hashlib.sha256(read_bytes(join(url, CONFIG)))
    try:
        digest.update(read_bytes(join(url, WEIGHTS)))
    except FileNotFoundError as error:
        raise UsageError(f"policy {url}: expected {WEIGHTS}, found none; copy it again") from error
    for name, found, expected in (
        ("numbers of an action", config.denoiser.action_dim, (benchmark.action_dim,)),
        ("numbers of proprioception", config.denoiser.proprio_dim, (0, benchmark.state_dim)),
    ):
        if found not in expected:
            wanted = " or ".join(map(str, expected))
            raise UsageError(f"--policy {url}: expected {wanted} {name} for {benchmark.name}, found {found}")
    return url, digest.hexdigest()[:16], config


def claim(request: Request, benchmark: Benchmark) -> None:
    """Writes what the episodes depend on, or makes sure that those that are there depend on the same.

    Raises:
        UsageError: If the output cannot be written or holds episodes of another request.
    """
    output = request.settings.output
    check_writable(output)
    remove_partial_files(output)
    url, conditions = join(output, EVALUATION), request.conditions(benchmark)
    if not exists(url):
        write_json(url, {**conditions, "settings": to_mapping(request.settings), "commit": commit()})
        return
    found = json.loads(read_bytes(url))
    different = [name for name, value in conditions.items() if name != "policy" and found.get(name) != value]
    if different:
        was = ", ".join(f"{name} {found.get(name)!r}" for name in different)
        now = ", ".join(f"{name} {conditions[name]!r}" for name in different)
        raise UsageError(f"--output {output}: holds episodes with {was}; now {now}; name another folder")
