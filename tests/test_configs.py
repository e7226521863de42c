"""The configurations in configs/ are of settings that the jobs have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from job_settings import SETTINGS

from runtime.settings import load_settings

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_section_is_of_a_job_and_changes_its_defaults(path: Path) -> None:
    sections = yaml.safe_load(path.read_text())
    assert set(sections) <= set(SETTINGS)
    for section in sections:
        settings_class, defaults_for = SETTINGS[section]
        settings = load_settings(settings_class, section, ["--config", str(path)], defaults_for)
        assert settings != settings_class()


def test_variants_are_trained_as_the_policy_that_learns_but_for_less_of_it() -> None:
    sections = yaml.safe_load((CONFIGS[0].parent / "learn.yaml").read_text())
    ablate, stage2 = sections["ablate"]["stage2"], sections["stage2"]
    train = {name: value for name, value in stage2["train"].items() if name != "micro_batch_size"}
    shorter = {name: ablate["train"][name] for name in ("steps", "batch_size", "validate_every", "checkpoint_every")}
    assert ablate == stage2 | {"train": train | shorter}
    assert shorter["batch_size"] < stage2["train"]["batch_size"]
    assert shorter["steps"] < stage2["train"]["steps"]
    assert sections["ablate"]["evaluate"].items() <= sections["evaluate"].items()
