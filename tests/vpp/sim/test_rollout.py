"""The loop of an episode: when it ends, when it looks, what the policy is told, and what a video shows."""

from __future__ import annotations

import io
from collections.abc import Mapping

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpp.sim.demonstrations import episode_seed
from vpp.sim.metaworld_simulator import MetaWorldSimulator, evaluation_seed, plan_episodes
from vpp.sim.metaworld_tasks import INSTRUCTIONS
from vpp.sim.rollout import ExpertActor, Moment, Observe, RandomActor, run_episode
from vpp.sim.rollout_video import EpisodeFilm
from vpp.sim.simulator import EpisodePlan, Simulator

pytest.importorskip("metaworld")

KEY = "observation.images.eye"


class Counter:
    """A simulator in which task `n` is solved by the n-th action, and whose picture is as bright as actions were many."""

    max_steps, control_hz = 100, 20.0

    def __init__(self) -> None:
        self.renderings: list[int] = []
        self.actions: list[float] = []

    def reset(self, episode: EpisodePlan) -> None:
        self.total = 0

    def begin(self, task: str) -> str:
        self.left = int(task)
        return f"do {task}"

    def observe(self) -> dict[str, np.ndarray]:
        self.renderings.append(self.total)
        return {KEY: np.full((256, 256, 3), self.total, np.uint8)}

    def step(self, action: np.ndarray) -> bool:
        self.actions.append(float(action[0]))
        self.total += 1
        self.left -= 1
        return self.left == 0

    def expert_action(self) -> np.ndarray | None:
        return None

    def close(self) -> None:
        pass


class Looker:
    """Looks, and gives chunks of 4 numbered actions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Moment]] = []

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        assert observe()[KEY] is observe()[KEY]
        self.asked.append((instruction, moment))
        return np.arange(4.0)[:, None]


def test_a_chain_ends_with_the_task_that_fails_and_the_policy_begins_each_anew() -> None:
    simulator, actor = Counter(), Looker()
    plan = EpisodePlan(0, ("3", "6", "99", "1"), 7)
    rows = run_episode(simulator, plan, actor, max_steps=9)
    assert [(r.position, r.task, r.success, r.num_steps) for r in rows] == [
        (0, "3", True, 3), (1, "6", True, 6), (2, "99", False, 9)
    ]  # fmt: skip
    assert actor.asked == [
        (f"do {task}", Moment(7, position, chunk))
        for position, (task, chunks) in enumerate((("3", 1), ("6", 2), ("99", 3)))
        for chunk in range(chunks)
    ]
    assert simulator.actions == [0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_pictures_are_rendered_only_when_the_policy_looks() -> None:
    simulator = Counter()
    run_episode(simulator, EpisodePlan(0, ("99",), 0), Looker(), max_steps=10)
    assert simulator.renderings == [0, 4, 8]
    simulator = Counter()
    run_episode(simulator, EpisodePlan(0, ("99",), 0), Looker(), max_steps=5, num_executed=2)
    assert simulator.renderings == [0, 2, 4]
    assert simulator.actions == [0, 1, 0, 1, 0]


def test_another_instruction_may_be_told() -> None:
    actor = Looker()
    (row,) = run_episode(Counter(), EpisodePlan(0, ("3",), 0), actor, max_steps=9, told={"3": "sing"})
    assert row.instruction == actor.asked[0][0] == "sing"


def decoded(video: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(video)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_video_takes_every_nth_step_and_shows_what_was_foreseen_beside_it() -> None:
    asked: list[tuple[int, str]] = []

    def foresee(observation: Mapping[str, np.ndarray], instruction: str, moment: Moment) -> np.ndarray:
        asked.append((int(observation[KEY][0, 0, 0]), instruction))
        return np.full((2, 256, 256, 3), 200, np.uint8)

    simulator, film = Counter(), EpisodeFilm("eye", 20.0, 3, foresee)
    run_episode(
        simulator, EpisodePlan(0, ("9", "2"), 0), Looker(), max_steps=20, told={"9": "a", "2": "b"}, watcher=film
    )
    assert simulator.renderings == [0, 3, 4, 6, 8, 9, 9, 11]  # the looks, every third step, and the ends
    assert asked == [(0, "a"), (6, "a"), (9, "b")]  # anew when two frames have been shown, and for each task
    frames = decoded(film.finish())
    assert len(frames) == (4 + 7) + (2 + 7)  # frames of each task, the last of which is held for a second
    height, width = frames[0].shape[:2]
    assert (height % 2, width % 2) == (0, 0)
    left, right = frames[1][-100, 100], frames[1][-100, width - 100]
    assert np.abs(left.astype(int) - 3).max() <= 4
    assert np.abs(right.astype(int) - 200).max() <= 4


def test_a_video_changes_nothing_and_tells_the_outcome_in_colour() -> None:
    solved, failed = (EpisodeFilm("eye", 20.0, 4) for _ in range(2))
    plan = EpisodePlan(0, ("9",), 0)
    bare = run_episode(Counter(), plan, Looker(), max_steps=20)
    filmed = run_episode(Counter(), plan, Looker(), max_steps=20, watcher=solved)
    assert [(r.success, r.num_steps) for r in bare] == [(r.success, r.num_steps) for r in filmed]
    run_episode(Counter(), plan, Looker(), max_steps=5, watcher=failed)
    green, red = (decoded(film.finish())[0][22:44].astype(int) for film in (solved, failed))
    assert (green[..., 1] - green[..., 0]).max() > 40
    assert (red[..., 0] - red[..., 1]).max() > 40


def test_experts_solve_tasks_chance_does_not_and_both_are_repeatable() -> None:
    plans = plan_episodes(("handle-press-v3", "drawer-close-v3"), 2, 0)
    simulator = MetaWorldSimulator(("corner2",), 32)

    def outcomes(actor: ExpertActor | RandomActor) -> list[tuple[bool, int]]:
        rows = [run_episode(simulator, plan, actor, max_steps=150)[0] for plan in plans]
        return [(row.success, row.num_steps) for row in rows]

    expert, chance = outcomes(ExpertActor()), outcomes(RandomActor(4, 0))
    assert [success for success, _ in expert] == [True] * 4
    assert len({num_steps for _, num_steps in expert}) > 2  # things lie in different places
    assert (outcomes(ExpertActor()), outcomes(RandomActor(4, 0))) == (expert, chance)
    assert sum(success for success, _ in chance) < 4
    simulator.close()


def test_pictures_are_256_wide_at_any_rendered_size_and_the_state_is_that_of_demonstrations() -> None:
    (plan,) = plan_episodes(("drawer-open-v3",), 1, 0)
    seen = {}
    for size in (64, 256):
        simulator = MetaWorldSimulator(("corner2", "gripperPOV"), size)
        simulator.reset(plan)
        assert simulator.begin("drawer-open-v3") == INSTRUCTIONS["drawer-open-v3"]
        seen[size] = simulator.observe()
        simulator.close()
    for name in ("observation.images.corner2", "observation.images.gripperPOV"):
        assert seen[64][name].shape == seen[256][name].shape == (256, 256, 3)
        assert np.abs(seen[64][name].astype(float) - seen[256][name]).mean() < 12
    state = seen[64]["observation.state"]
    assert (state.shape, state.dtype) == ((4,), np.float32)
    np.testing.assert_array_equal(state, seen[256]["observation.state"])


SEEDS, TASKS = st.integers(0, 2**40), st.sampled_from(list(INSTRUCTIONS))


@given(
    seed=SEEDS, task=TASKS, number=st.integers(0, 10**6), demonstration_seed=SEEDS, demonstration=st.integers(0, 10**9)
)
def test_no_evaluation_has_the_seed_of_a_demonstration(
    seed: int, task: str, number: int, demonstration_seed: int, demonstration: int
) -> None:
    drawn, place = divmod(evaluation_seed(seed, task, number), 50)
    demonstrated = episode_seed(demonstration_seed, task, demonstration) // 50
    assert demonstrated < 3 * 2**30 <= drawn < 2**32  # numpy's limit of seeds
    assert place < 50
