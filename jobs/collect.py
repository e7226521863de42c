"""Records demonstrations of MetaWorld's scripted experts as a LeRobot v3.0 dataset. See `--help`."""

import json
import logging

from schemas.settings import load_settings, run_job, to_mapping
from vpp.sim.collect import CollectSettings, collect


def main() -> None:
    """Parses, logs the resolved settings, runs, prints what was recorded."""
    settings = load_settings(CollectSettings, "collect")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    record = collect(settings)
    print(f"{'task':32} {'tried':>6} {'kept':>6} {'failed':>6}")
    for task, counts in record["tasks"].items():
        print(f"{task:32} {counts['tried']:>6} {counts['kept']:>6} {counts['failed']:>6}")
    print(f"dataset: {settings.output}")


if __name__ == "__main__":
    run_job(main)
