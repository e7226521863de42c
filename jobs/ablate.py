"""Trains and evaluates variants of the policy on the same data and seeds, and compares them. See `--help`."""

import json
import logging

from ray.exceptions import RayError

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from schemas.storage import join
from vpp.sim.evaluate import evaluate
from vpp.train.ablation import AblateSettings, ablate, preset_settings, table_markdown
from vpp.train.ray_train import TrainingFailed
from vpp.train.stage2 import run_stage2


def main() -> int:
    """Parses, logs the resolved settings, trains, prints the table."""
    settings = load_settings(AblateSettings, "ablate", defaults_for=preset_settings)
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    try:
        rows = ablate(settings, run_stage2, evaluate)
    except (TrainingFailed, RayError) as error:
        logging.error("stopped: %s", str(error).strip().splitlines()[-1])
        logging.error("what is done is kept: the same command continues")
        return 1
    if rows is None:
        print("stopped: the same command continues")
        return 130
    print(table_markdown(rows), end="")
    print(f"table: {join(settings.output, 'table.md')}")
    return 0


if __name__ == "__main__":
    run_job(main)
