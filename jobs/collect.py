"""Records demonstrations of MetaWorld's scripted experts as a LeRobot v3.0 dataset. See `--help`."""

import json
import logging

from ray.exceptions import RayError

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from vpp.sim.collect import CollectSettings, collect


def main() -> int:
    """Parses, logs the resolved settings, runs, prints what was recorded."""
    settings = load_settings(CollectSettings, "collect")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    try:
        record = collect(settings)
    except RayError as error:
        logging.error("stopped: %s", str(error).strip().splitlines()[-1])
        logging.error("what is recorded is kept: the same command continues")
        return 1
    print(f"{'task':32} {'attempted':>10} {'succeeded':>10} {'failed':>10}")
    for task, counts in record["tasks"].items():
        print(f"{task:32} {counts['attempted']:>10} {counts['succeeded']:>10} {counts['failed']:>10}")
    print(f"dataset: {settings.output}")
    return 0


if __name__ == "__main__":
    run_job(main)
