"""The settings of each job that takes any, for tests of files and documents that name options."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.request import PreprocessSettings
from vpp.export.export_job import ExportSettings
from vpp.policy.import_job import ImportSettings
from vpp.sim.collect import CollectSettings
from vpp.sim.evaluation_request import EvaluateSettings
from vpp.train import ablation, stage1_settings, stage2_settings
from vpp.video.predict_job import PredictSettings

SETTINGS: dict[str, tuple[type, Callable | None]] = {
    "collect": (CollectSettings, None),
    "preprocess": (PreprocessSettings, None),
    "stage1": (stage1_settings.Stage1Settings, stage1_settings.preset_settings),
    "predict": (PredictSettings, None),
    "stage2": (stage2_settings.Stage2Settings, stage2_settings.preset_settings),
    "ablate": (ablation.AblateSettings, ablation.preset_settings),
    "evaluate": (EvaluateSettings, None),
    "export": (ExportSettings, None),
    "import_official": (ImportSettings, None),
}
