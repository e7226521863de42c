"""Writes episodes of a dataset as a LeRobot v3.0 dataset, or one of them as a recording for rerun. See `--help`."""

import json
import logging

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from vpp.export.export_job import ExportSettings, export


def main() -> None:
    """Parses, logs the resolved settings, exports, prints what was written."""
    settings = load_settings(ExportSettings, "export")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    result = export(settings)
    print(
        f"{result['episodes']:,} episodes of {result['dataset']}, {result['frames']:,} frames at {result['fps']:g} Hz"
    )
    print(f"{settings.format}: {settings.output}")


if __name__ == "__main__":
    run_job(main)
