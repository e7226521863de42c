"""The configurations in configs/ are of settings that the jobs have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines.request import PreprocessSettings
from schemas.settings import load_settings
from vpp.sim.collect import CollectSettings
from vpp.sim.evaluation_request import EvaluateSettings
from vpp.train import stage1_settings, stage2_settings

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
JOBS = {
    "collect": (CollectSettings, None),
    "preprocess": (PreprocessSettings, None),
    "stage1": (stage1_settings.Stage1Settings, stage1_settings.preset_settings),
    "stage2": (stage2_settings.Stage2Settings, stage2_settings.preset_settings),
    "evaluate": (EvaluateSettings, None),
}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_section_is_of_a_job_and_changes_its_defaults(path: Path) -> None:
    sections = yaml.safe_load(path.read_text())
    assert set(sections) <= set(JOBS)
    for section in sections:
        settings_class, defaults_for = JOBS[section]
        settings = load_settings(settings_class, section, ["--config", str(path)], defaults_for)
        assert settings != settings_class()
