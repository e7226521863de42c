"""The benchmarks by name: tasks, episodes, and how to make the simulator, which is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from schemas.errors import UsageError
from vpp.sim.simulator import EpisodePlan, Simulator

Name = Literal["metaworld", "calvin"]


@dataclass(frozen=True)
class Benchmark:
    """What an evaluation needs to know before the first simulator is made.

    Attributes:
        name: Of the benchmark.
        instructions: By task, in the benchmark's order.
        groups: By task; empty where the benchmark has none.
        cameras: Names of all cameras.
        default_tasks: Those that are run where none are named.
        default_cameras: What a video shows where no policy says what it sees.
        default_episodes: How many: of each task, or chains.
        state_dim: Numbers of `observation.state`.
        action_dim: Numbers of an action.
        max_steps: Actions that each task may take by the official protocol.
        control_hz: Actions a second.
        has_expert: Whether there are scripted experts.
        packages: Whose versions decide what happens.
        expand: Tasks of the names that a user gives.
        plan: Episodes of tasks, a number of them and a seed.
        make: A simulator with cameras whose pictures are rendered at a size in pixels and observed at another.
        summarise: What is told of all rows beside the tasks' success.
        details: What is told of every episode, by the name of the JSON file that it is written to.
    """

    name: str
    instructions: Mapping[str, str]
    groups: Mapping[str, str]
    cameras: tuple[str, ...]
    default_tasks: tuple[str, ...]
    default_cameras: tuple[str, ...]
    default_episodes: int
    state_dim: int
    action_dim: int
    max_steps: int
    control_hz: float
    has_expert: bool
    packages: tuple[str, ...]
    expand: Callable[[Sequence[str]], tuple[str, ...]]
    plan: Callable[[Sequence[str], int, int], list[EpisodePlan]]
    make: Callable[[Sequence[str], int, int], Simulator]
    summarise: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
    details: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]


def find_benchmark(name: Name) -> Benchmark:
    """The benchmark of a name.

    Raises:
        UsageError: If its simulator is not installed.
    """
    return {"metaworld": _metaworld, "calvin": _calvin}[name]()


def _metaworld() -> Benchmark:
    from vpp.sim import metaworld, metaworld_simulator
    from vpp.sim.headless import choose_renderer
    from vpp.sim.metaworld_tasks import GROUPS, INSTRUCTIONS, expand_tasks

    choose_renderer()  # before MuJoCo, and before the processes that inherit what it chose
    return Benchmark(
        name="metaworld",
        instructions=INSTRUCTIONS,
        groups=GROUPS,
        cameras=metaworld.CAMERAS,
        default_tasks=("button-press-topdown-v3", "drawer-open-v3", "window-open-v3"),
        default_cameras=("corner2",),
        default_episodes=20,
        state_dim=metaworld.PROPRIO_DIM,
        action_dim=len(metaworld.ACTION_NAMES),
        max_steps=metaworld.MAX_STEPS,
        control_hz=metaworld.CONTROL_HZ,
        has_expert=True,
        packages=("metaworld", "mujoco"),
        expand=expand_tasks,
        plan=metaworld_simulator.plan_episodes,
        make=metaworld_simulator.MetaWorldSimulator,
        summarise=lambda rows: {},
        details=lambda rows: {},
    )


def _calvin() -> Benchmark:
    from vpp.sim import calvin, chain_results
    from vpp.sim.calvin_tasks import INSTRUCTIONS, KINDS
    from vpp.sim.calvin_world import check_installed
    from vpp.sim.chains import NUM_CHAINS, plan_chains

    def expand(names: Sequence[str]) -> tuple[str, ...]:
        if tuple(names) != tuple(INSTRUCTIONS):
            found = ", ".join(names)
            raise UsageError(f"--tasks: expected none for CALVIN, whose chains say what is done, found {found}")
        return tuple(INSTRUCTIONS)

    check_installed()
    return Benchmark(
        name="calvin",
        instructions=INSTRUCTIONS,
        groups=KINDS,
        cameras=calvin.CAMERAS,
        default_tasks=tuple(INSTRUCTIONS),
        default_cameras=calvin.CAMERAS[:1],
        default_episodes=NUM_CHAINS,
        state_dim=calvin.PROPRIO_DIM,
        action_dim=calvin.ACTION_DIM,
        max_steps=calvin.MAX_STEPS,
        control_hz=calvin.CONTROL_HZ,
        has_expert=False,
        packages=("pybullet",),
        expand=expand,
        plan=lambda tasks, num_chains, seed: plan_chains(num_chains),
        make=lambda cameras, image_size_px, frame_size: calvin.CalvinSimulator(cameras, frame_size=frame_size),
        summarise=chain_results.summarise_chains,
        details=lambda rows: {chain_results.CHAINS: chain_results.chain_results(rows)},
    )
