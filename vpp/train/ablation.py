"""Trains variants of the policy on the same data with the same seeds, and puts them into one table.

<output>/<variant>/seed_<n>/   the runs, as jobs/stage2.py leaves them; evaluate/ in each, as jobs/evaluate.py does
<output>/features/             features that the runs share, where they are cached
<output>/table.json, table.md  success, error of drawn actions on held-out windows, and seconds from pictures to a chunk
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from runtime.settings import commit, from_mapping, to_mapping
from schemas.errors import UsageError
from schemas.plain_yaml import parse_yaml
from schemas.storage import join, write_bytes
from vpp.policy.observation import IMAGES, STATE, TASK
from vpp.policy.policy import VideoPredictionPolicy
from vpp.policy.policy_folder import read_config
from vpp.sim.evaluation_request import EvaluateSettings
from vpp.train import stage2_settings
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.engine import Outcome
from vpp.train.stage2_settings import Stage2Settings

_log = logging.getLogger(__name__)

COMPARISONS = {
    "full": "",
    "vae_encoder": "features.encoder=vae",
    "random_encoder": "features.encoder=random",
    "former_2d": "video_former.kind=2d",
    "no_former": "video_former.kind=none",
    "last_layer": "features.aggregate=last",
    "two_steps": "features.num_steps=2",
    "whole_video": "features.num_steps=20",
    "one_future_frame": "features.future_frames=one",
    "data_10_percent": "loading.data_fraction=0.1",
}
"""The paper's comparisons, each as the one setting that it changes (arXiv 2412.14803, sections 5.2 and 5.3)."""

_STUDENT_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Two-sided 95 % quantiles of Student's t by degrees of freedom; 1.96 is close enough beyond."""


@dataclass(frozen=True)
class AblateSettings:
    """Trains variants of the policy and compares them, for example:

    python jobs/ablate.py --output out/ablation --stage2.data out/demo --stage2.video-model out/demo/stage1
    --stage2.preset tiny --variants full vae_encoder no_former "wide:video_former.width=256,denoiser.width=256"

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Raises:
        ValueError: If a value is outside its range.
    """

    output: str = ""
    """Folder or URL of the runs and the table; the same one again continues."""
    variants: tuple[str, ...] = ("full", "vae_encoder", "former_2d", "no_former", "last_layer", "two_steps")
    """Names of the paper's comparisons, or own ones as `NAME:setting=value,setting=value`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every variant is trained once with each."""
    latency_chunks: int = 5
    """Chunks that are timed for each variant, after one that is not; 0 times none."""
    evaluate_episodes: int = 0
    """Episodes of each task in which every run is evaluated; 0 evaluates none."""
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    """How; `policy`, `output` and `episodes` are set for each run."""
    stage2: Stage2Settings = field(default_factory=Stage2Settings)
    """What all variants share; `output` and `train.seed` are set for each run."""

    def __post_init__(self) -> None:
        if not (self.variants and self.seeds and min(self.latency_chunks, self.evaluate_episodes) >= 0):
            raise ValueError(
                "expected at least one variant, at least one seed, latency_chunks >= 0 and evaluate_episodes >= 0"
            )


def preset_settings(settings: AblateSettings) -> AblateSettings:
    """The defaults that go with the preset of stage 2."""
    return AblateSettings(stage2=stage2_settings.preset_settings(settings.stage2))


def vary(settings: Stage2Settings, variant: str) -> tuple[str, Stage2Settings]:
    """The name and the settings of a variant.

    Args:
        settings: What all variants share.
        variant: A name of `COMPARISONS`, or `NAME:setting=value,...` with dots for nested settings.

    Raises:
        UsageError: If there is no such comparison or setting, or its value is wrong.

    >>> vary(Stage2Settings(), "small:video_former.depth=2")[1].video_former.depth
    2
    """
    name, has_own, changes = variant.partition(":")
    if not has_own:
        if name not in COMPARISONS:
            raise UsageError(
                f"--variants: expected one of {', '.join(COMPARISONS)}, or NAME:setting=value,..., found {name!r}"
            )
        changes = COMPARISONS[name]
    if not name or "/" in name:
        raise UsageError(f"--variants {variant}: expected a name without slashes before the colon, found {name!r}")
    values: dict[str, Any] = {}
    for change in filter(None, changes.split(",")):
        path, _, value = change.partition("=")
        *parents, last = path.strip().split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        try:
            place[last] = parse_yaml(value)
        except ValueError as error:
            raise UsageError(f"--variants {variant}: {path}: not valid YAML: {error}") from error
    return name, from_mapping(Stage2Settings, values, f"--variants {name}", settings)


def ablate(
    settings: AblateSettings,
    train: Callable[[Stage2Settings], Outcome],
    evaluate: Callable[[EvaluateSettings], dict[str, Any]],
) -> list[dict[str, Any]] | None:
    """Trains what is not trained yet, and writes the table.

    Args:
        settings: What is compared.
        train: Runs stage 2.
        evaluate: Runs an evaluation, and returns its summary.

    Returns:
        The rows of the table; None if a training was asked to stop.

    Raises:
        UsageError: If a setting is wrong; before the first training where it can be seen.
    """
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    variants = dict(vary(settings.stage2, variant) for variant in settings.variants)
    if len(variants) != len(settings.variants):
        raise UsageError(f"--variants: expected different names, found {', '.join(settings.variants)}")
    unjudged = [name for name, of_variant in variants.items() if not of_variant.train.validate_every]
    if unjudged:
        raise UsageError(
            "--stage2.train.validate-every: expected more than 0, since variants are compared by their validation, "
            f"found 0 in {', '.join(unjudged)}"
        )
    shared = settings.stage2.feature_folder or ("" if "://" in settings.output else join(settings.output, "features"))
    rows = []
    for name, of_variant in variants.items():
        runs = []
        for seed in settings.seeds:
            url = join(settings.output, name, f"seed_{seed}")
            _log.info("variant %s, seed %d: %s", name, seed, url)
            training = replace(of_variant.train, seed=seed)
            if not train(replace(of_variant, output=url, train=training, feature_folder=shared)).is_finished:
                return None
            runs.append(url)
        rows.append(_row(name, runs, settings.latency_chunks))
        if settings.evaluate_episodes:
            rows[-1] |= _success([evaluate(_evaluation(settings, url)) for url in runs])
    record = {"rows": rows, "settings": to_mapping(settings), "commit": commit()}
    write_bytes(join(settings.output, "table.json"), (json.dumps(record, indent=1) + "\n").encode())
    write_bytes(join(settings.output, "table.md"), table_markdown(rows).encode())
    return rows


def interval_95(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean, by Student's t; NaN for a single value.

    >>> round(interval_95([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 2:
        return math.nan
    return _STUDENT_95.get(len(values) - 1, 1.96) * statistics.stdev(values) / math.sqrt(len(values))


def _evaluation(settings: AblateSettings, url: str) -> EvaluateSettings:
    episodes = settings.evaluate_episodes
    return replace(settings.evaluate, policy=url, output=join(url, "evaluate"), episodes=episodes)


def _success(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds of the mean over tasks, and the episodes that each is of."""
    means = [float(summary["mean"]) for summary in summaries]
    return {
        "success": statistics.mean(means),
        "success_95": interval_95(means),
        "success_by_seed": means,
        "num_episodes": summaries[0]["num_episodes"],
    }


def table_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    lines = [
        "| variant | success | error of drawn actions | below a constant action, dB | seconds a chunk | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        seconds = "" if row["chunk_s"] is None else f"{row['chunk_s']:.3f}"
        success = f"{row['success']:.2f} ± {row['success_95']:.2f}" if "success" in row else ""
        lines.append(
            f"| {row['variant']} | {success} | {row['action_mse']:.4f} ± {row['action_mse_95']:.4f} | "
            f"{row['action_gain_db']:.2f} ± {row['action_gain_db_95']:.2f} | {seconds} | {row['num_seeds']} |"
        )
    return "\n".join(lines) + "\n"


def _row(name: str, runs: Sequence[str], num_chunks: int) -> dict[str, Any]:
    metrics = []
    for url in runs:
        checkpoint = read_latest_checkpoint(url, groups=[])
        assert checkpoint is not None
        if "val/action_mse" not in checkpoint.info.metrics:
            raise UsageError(
                f"{url}: expected a validation at the last step, found none; set --stage2.train.validate-every"
            )
        metrics.append(checkpoint.info.metrics)
    row: dict[str, Any] = {"variant": name, "num_seeds": len(runs)}
    for key in ("action_mse", "action_gain_db"):
        values = [of_run[f"val/{key}"] for of_run in metrics]
        row |= {key: statistics.mean(values), f"{key}_95": interval_95(values)}
    row["chunk_s"] = _seconds_a_chunk(join(runs[0], "policy"), num_chunks) if num_chunks else None
    return row


def _seconds_a_chunk(policy_url: str, num_chunks: int) -> float:
    """Median time from one observation to a chunk."""
    policy = VideoPredictionPolicy.load(policy_url, dataset=read_config(policy_url).datasets[0])
    size = policy.config.frame_size
    observation: dict[str, Any] = {
        IMAGES + camera: np.full((size, size, 3), 127, np.uint8) for camera in policy.config.cameras
    }
    observation |= {TASK: "push", STATE: np.zeros(policy.config.denoiser.proprio_dim, np.float32)}
    times = []
    for _ in range(1 + num_chunks):
        began = time.perf_counter()
        policy.predict_action_chunk(observation)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
