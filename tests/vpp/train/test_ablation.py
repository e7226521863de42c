"""Variants of the policy are one setting each, trained with the same seeds, and stand in one table."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from episode_dataset import write_episode_dataset
from running import ROOT
from video_model import write_video_model

from runtime.settings import load_settings, to_mapping
from schemas.errors import UsageError
from vpp.sim.evaluation_request import EvaluateSettings
from vpp.train.ablation import COMPARISONS, AblateSettings, ablate, interval_95, preset_settings, vary
from vpp.train.ray_train import TrainingFailed
from vpp.train.run_log import read_steps
from vpp.train.stage2 import train_here
from vpp.train.stage2_settings import Stage2Settings


@pytest.mark.parametrize("name", [name for name in COMPARISONS if name != "full"])
def test_a_comparison_changes_one_setting(name: str) -> None:
    def flat(values: dict[str, object], before: str = "") -> dict[str, object]:
        result: dict[str, object] = {}
        for key, value in values.items():
            result |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
        return result

    base = Stage2Settings()
    then, now = flat(to_mapping(base)), flat(to_mapping(vary(base, name)[1]))
    assert [key for key in then if then[key] != now[key]] == [COMPARISONS[name].partition("=")[0]]


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("slow", "expected one of full, "), ("mine:video_former.depht=2", "unknown setting depht"),
        ("mine:video_former.kind=4d", "expected one of 3d, 2d, none, found '4d'"), (":train.steps=3", "expected a name"),
        ("mine:features.num_steps=99", "expected 1 <= num_steps <= schedule_steps"),
    ],
)  # fmt: skip
def test_a_variant_that_does_not_exist_is_refused(variant: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        vary(Stage2Settings(), variant)


def test_variants_are_trained_on_the_same_samples_and_compared(tmp_path: Path) -> None:
    codec = write_video_model(tmp_path / "model")
    write_episode_dataset(str(tmp_path / "data"), {"blocks": 3}, latent_codec=codec, num_frames=4)
    argv = (
        f"--output {tmp_path}/out --evaluate-episodes 7 --evaluate.max-steps 9 --variants vae_encoder narrow:features.encoder=vae,video_former.width=64 "
        f"--seeds 0 1 --latency-chunks 1 --stage2.preset tiny --stage2.data {tmp_path}/data --stage2.video-model "
        f"{tmp_path}/model --stage2.train.steps 1 --stage2.train.batch-size 2 --stage2.loading.validation-fraction 0.3 "
        "--stage2.train.precision fp32"
    ).split()
    settings = load_settings(AblateSettings, "ablate", argv, defaults_for=preset_settings)
    assert settings.stage2.video_former.width == 128  # of the preset
    asked: list[EvaluateSettings] = []

    def evaluate(of_run: EvaluateSettings) -> dict[str, Any]:
        asked.append(of_run)
        return {"mean": 0.5 if of_run.policy.endswith("seed_0") else 0.75, "num_episodes": 14}

    rows = ablate(settings, train_here, evaluate)
    assert [(e.policy, e.output, e.episodes, e.max_steps) for e in asked] == [
        (f"{tmp_path}/out/{name}/seed_{seed}", f"{tmp_path}/out/{name}/seed_{seed}/evaluate", 7, 9)
        for name in ("vae_encoder", "narrow")
        for seed in (0, 1)
    ]
    assert rows is not None
    assert all((row["success"], row["success_by_seed"]) == (0.625, [0.5, 0.75]) for row in rows)
    assert len(list((tmp_path / "out" / "features").glob("*.f16"))) == 1  # shared by all that see the same
    assert [(row["variant"], row["num_seeds"]) for row in rows] == [("vae_encoder", 2), ("narrow", 2)]
    assert all(row["chunk_s"] > 0 and math.isfinite(row["action_mse_95"]) for row in rows)
    samples = [read_steps(f"{tmp_path}/out/{name}/seed_1")["sample_ids"] for name in ("vae_encoder", "narrow")]
    assert samples[0].equals(samples[1])
    assert json.loads((tmp_path / "out" / "table.json").read_text())["rows"] == rows
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 4
    doubled = dataclasses.replace(settings, variants=("full", "full"))
    with pytest.raises(UsageError, match="expected different names"):
        ablate(doubled, train_here, evaluate)
    unjudged = dataclasses.replace(settings.stage2.train, validate_every=0)
    with pytest.raises(UsageError, match="compared by their validation, found 0 in vae_encoder, narrow"):
        ablate(
            dataclasses.replace(settings, stage2=dataclasses.replace(settings.stage2, train=unjudged)),
            train_here,
            evaluate,
        )


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(interval_95([1.0]))


def test_a_training_that_fails_ends_the_job_with_one_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise TrainingFailed("workers failed more than 3 times: a node died")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vpp.train.ablation.ablate", fail)
    monkeypatch.setattr(sys, "argv", ["ablate.py"])
    assert runpy.run_path(str(ROOT / "jobs" / "ablate.py"))["main"]() == 1
    assert "stopped: workers failed more than 3 times: a node died" in caplog.text
