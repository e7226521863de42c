"""Fine-tunes the text-guided video model on preprocessed clips; the same command resumes. See `--help`."""

import json
import logging
from functools import partial

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from schemas.storage import join
from vpp.train.stage1 import run_stage1
from vpp.train.stage1_settings import Stage1Settings, preset_settings
from vpp.train.training_job import end_training


def main() -> int:
    """Parses, logs the resolved settings, trains, says where the model is."""
    settings = load_settings(Stage1Settings, "stage1", defaults_for=preset_settings)
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    product = f"model: {join(settings.output, 'model')}"
    code, message = end_training(partial(run_stage1, settings), settings.train.steps, product)
    print(message)
    return code


if __name__ == "__main__":
    run_job(main)
