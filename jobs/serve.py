"""Serves a policy to robots over WebSocket. See `--help`."""

import json
import logging

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from vpp.serve.settings import ServeSettings


def main() -> None:
    """Parses, logs the resolved settings, serves until it is told to stop."""
    settings = load_settings(ServeSettings, "serve")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    from vpp.serve.serve_job import serve  # torch takes seconds

    serve(settings, lambda told: print(told, flush=True))


if __name__ == "__main__":
    run_job(main)
