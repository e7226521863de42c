"""LeRobot opens the dataset that is exported, makes the policy by its factory, and evaluates it with its own command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lerobot_environment import LeRobotEnvironment, make_environment
from stored_episodes import LENGTHS, write_stored_episodes
from tiny_policy import NUM_ACTIONS, SEEN, write_policy
from videos import read_number

from schemas.errors import UsageError
from vpp.export.export_job import ExportSettings, export
from vpp.sim.headless import renderer

pytestmark = pytest.mark.slow

OPEN = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("local/blocks", root=sys.argv[1], delta_timestamps={"action": [0, 0.1, 0.2]})
items = [dataset[number] for number in range(len(dataset))]
pictures = np.stack([item["observation.images.wrist"].numpy() for item in items])
np.save(sys.argv[2], (pictures.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8))
told = {
    "episodes": dataset.num_episodes,
    "tasks": [item["task"] for item in items],
    "states": [item["observation.state"].tolist() for item in items],
    "actions": [item["action"].tolist() for item in items],
    "padded": [item["action_is_pad"].tolist() for item in items],
    "statistics": sorted(dataset.meta.stats),
}
print(json.dumps(told))
"""

ACT = """
import sys
import numpy as np
import torch
from lerobot.utils.import_utils import register_third_party_plugins

register_third_party_plugins()
from lerobot.configs.policies import PreTrainedConfig
from lerobot.envs.configs import MetaworldEnv
from lerobot.policies.factory import make_policy, make_pre_post_processors

folder, picture, output = sys.argv[1:]
names = {"observation.image": "observation.images.corner2"}
config = PreTrainedConfig.from_pretrained(folder, cli_overrides=["--device=cpu"])
config.pretrained_path = folder
policy = make_policy(config, env_cfg=MetaworldEnv(), rename_map=names)
before, after = make_pre_post_processors(
    config, pretrained_path=folder, preprocessor_overrides={"rename_observations_processor": {"rename_map": names}}
)
shown = torch.from_numpy(np.load(picture)).permute(2, 0, 1).float() / 255
seen = {"observation.image": torch.stack([shown] * 2), "observation.state": torch.zeros(2, 4)}
seen = before(seen | {"task": ["open the drawer", "open the drawer"]})
policy.reset()
chosen = [after(policy.select_action(seen)) for _ in range(3)]
policy.reset()
chunk = policy.predict_action_chunk(seen)

from vpp.policy.policy import VideoPredictionPolicy
from vpp.sim.stored_picture import StoredPicture

ours = VideoPredictionPolicy.load(folder, device="cpu")
stored = StoredPicture(ours.config.frame_size)(np.load(picture))
plain = {"observation.images.corner2": np.stack([stored] * 2), "observation.state": np.zeros((2, 4), np.float32)}
without = ours.predict_action_chunk(plain | {"task": ["open the drawer", "open the drawer"]})
np.savez(output, chosen=torch.stack(chosen).numpy(), chunk=chunk.numpy(), without_lerobot=without.numpy())
policy.save_pretrained(output + "-saved")
type(policy).from_pretrained(output + "-saved")
try:
    policy.forward(seen)
except ValueError as error:
    print(error)
for change in ("--frame_size=64", "--features.encoder=text"):
    try:
        type(policy).from_pretrained(folder, config=PreTrainedConfig.from_pretrained(folder, cli_overrides=[change]))
    except Exception as error:
        print(error)
"""

EVALUATE = """
from metaworld.sawyer_xyz_env import SawyerXYZEnv

SawyerXYZEnv.max_path_length = 6
from lerobot.scripts.lerobot_eval import main

main()
"""


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory) -> LeRobotEnvironment:
    return make_environment(tmp_path_factory.mktemp("lerobot") / "environment")


def test_the_exported_dataset_opens_and_shows_what_was_stored(lerobot: LeRobotEnvironment, tmp_path: Path) -> None:
    write_stored_episodes(str(tmp_path / "data"))
    export(ExportSettings(data=str(tmp_path / "data"), output=str(tmp_path / "out")))
    printed = lerobot.run(OPEN, tmp_path / "out", tmp_path / "pictures.npy")
    told = json.loads(printed.splitlines()[-1])
    numbers = [number for number in range(sum(LENGTHS)) if number != LENGTHS[0] - 1]  # a frame without an action
    assert [read_number(picture) for picture in np.load(tmp_path / "pictures.npy")] == numbers
    assert told["states"] == [[number] * 3 for number in numbers]
    assert told["actions"][5] == [[number] * 2 for number in (5, 6, 7)]
    assert told["padded"][LENGTHS[0] - 2] == [False, True, True]  # the last action of the first episode
    lengths = (LENGTHS[0] - 1, *LENGTHS[1:])
    assert told["tasks"] == [f"task {number % 2}" for number, length in enumerate(lengths) for _ in range(length)]
    assert told["episodes"] == 3
    assert {"action", "observation.state", "observation.images.front"} <= set(told["statistics"])


def test_the_policy_acts_in_lerobot_as_it_does_here(lerobot: LeRobotEnvironment, tmp_path: Path) -> None:
    url = write_policy(tmp_path)
    large = np.kron(SEEN["observation.images.corner2"], np.ones((2, 2, 1), np.uint8))[:480, :480]
    np.save(tmp_path / "large.npy", large)
    printed = lerobot.run(ACT, url, tmp_path / "large.npy", tmp_path / "acted")
    acted = np.load(tmp_path / "acted.npz")
    assert acted["chunk"].shape == (2, NUM_ACTIONS, 4)
    # in one environment: the random stand-in for CLIP differs between versions of transformers
    np.testing.assert_allclose(acted["chunk"], acted["without_lerobot"], atol=1e-5)
    assert np.ptp(acted["chunk"]) > 0.1
    np.testing.assert_array_equal(acted["chosen"], acted["chunk"][:, :3].transpose(1, 0, 2))
    assert "found to be trained by LeRobot; use jobs/stage2.py" in printed
    assert "expected frame_size 256 as in its config.json, found 64" in printed
    assert "expected one of video, vae, random, found 'text'" in printed


def test_lerobot_eval_runs_the_policy_in_metaworld(lerobot: LeRobotEnvironment, tmp_path: Path) -> None:
    try:
        library = renderer({})
    except UsageError as error:
        pytest.skip(str(error))
    url = write_policy(tmp_path)
    printed = lerobot.run(
        EVALUATE,
        f"--policy.path={url}",
        "--policy.device=cpu",
        "--policy.sampler.num_executed=2",
        "--env.type=metaworld",
        "--env.task=drawer-open-v3",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        '--rename_map={"observation.image": "observation.images.corner2"}',
        f"--output_dir={tmp_path / 'evaluated'}",
        MUJOCO_GL=library,
    )
    overall = json.loads((tmp_path / "evaluated/eval_info.json").read_text())["overall"]
    assert overall["n_episodes"] == 1, printed[-3000:]
