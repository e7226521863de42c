"""Trains the policy on predictive features of preprocessed episodes; the same command resumes. See `--help`."""

import json
import logging
from functools import partial

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from schemas.storage import join
from vpp.train.stage2 import run_stage2
from vpp.train.stage2_settings import Stage2Settings, preset_settings
from vpp.train.training_job import end_training


def main() -> int:
    """Parses, logs the resolved settings, trains, says where the policy is."""
    settings = load_settings(Stage2Settings, "stage2", defaults_for=preset_settings)
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    product = f"policy: {join(settings.output, 'policy')}"
    code, message = end_training(partial(run_stage2, settings), settings.train.steps, product)
    print(message)
    return code


if __name__ == "__main__":
    run_job(main)
