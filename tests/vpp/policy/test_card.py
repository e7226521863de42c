"""A policy's card is one that the hub reads, and says what is a stand-in and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tiny_policy import write_policy

from schemas.errors import UsageError
from vpp.policy.card import policy_card
from vpp.policy.config import PolicyConfig
from vpp.policy.policy_folder import read_config

CONFIG = PolicyConfig(cameras=("front",), text_encoder="tiny", datasets=("blocks",), trained_by="3 steps, commit abc")


def test_the_hub_reads_it(tmp_path: Path) -> None:
    card = ModelCard(policy_card(CONFIG, 1_500_000, "## Training\n\nOf a kind."))
    assert card.data.library_name == "lerobot"
    assert {"robotics", "vpp"} <= set(card.data.tags)
    assert card.data.license is None
    assert "1.5 M weights" in card.text
    assert "## Training" in card.text


def test_a_stand_in_is_said_to_be_one() -> None:
    assert "`tiny`: random weights, a stand-in for CLIP" in policy_card(CONFIG, 1)
    assert "stand-in" not in policy_card(replace(CONFIG, text_encoder="openai/clip-vit-base-patch32"), 1)


def test_what_a_name_holds_does_not_break_the_table() -> None:
    assert "`a'b/c`" in policy_card(replace(CONFIG, datasets=("a`b|c",)), 1)


def test_the_folder_is_a_policy_of_lerobot_and_one_of_another_type_is_refused(tmp_path: Path) -> None:
    folder = Path(write_policy(tmp_path))
    content = json.loads((folder / "config.json").read_text())
    assert content["type"] == "vpp"
    steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    assert {"device_processor", "rename_observations_processor"} <= {step["registry_name"] for step in steps}
    assert (folder / "policy_postprocessor.json").is_file()
    del content["type"]  # as older versions wrote it
    (folder / "config.json").write_text(json.dumps(content))
    assert read_config(str(folder)).cameras == ("corner2",)
    (folder / "config.json").write_text(json.dumps(content | {"type": "act"}))
    with pytest.raises(UsageError, match="found one of another type of LeRobot's"):
        read_config(str(folder))
