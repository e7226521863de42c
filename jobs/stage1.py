"""Fine-tunes the text-guided video model on preprocessed clips; the same command resumes. See `--help`."""

import json
import logging

from schemas.settings import load_settings, run_job, to_mapping
from schemas.storage import join
from vpp.train.ray_train import TrainingFailed
from vpp.train.stage1 import run_stage1
from vpp.train.stage1_settings import Stage1Settings, preset_settings


def main() -> int:
    """Parses, logs the resolved settings, trains, says where the model is."""
    settings = load_settings(Stage1Settings, "stage1", defaults_for=preset_settings)
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    try:
        outcome = run_stage1(settings)
    except TrainingFailed as error:
        logging.error("stopped: %s", error)
        logging.error("the last checkpoint is kept: the same command continues")
        return 1
    if not outcome.is_finished:
        print(f"stopped at step {outcome.step} of {settings.train.steps}: the same command continues")
        return 130
    print(f"model: {join(settings.output, 'model')} after {outcome.step} steps")
    return 0


if __name__ == "__main__":
    run_job(main)
