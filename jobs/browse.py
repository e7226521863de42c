"""Shows datasets, trainings and evaluations of a folder as web pages. See `--help`."""

import json
import logging
from functools import partial

from pipelines.query import Manifest
from pipelines.range_read import locate_members
from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from vpp.browse.access import Access
from vpp.browse.browse_job import browse
from vpp.browse.settings import BrowseSettings


def main() -> None:
    """Parses, logs the resolved settings, serves pages until it is told to stop."""
    settings = load_settings(BrowseSettings, "browse")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    access = Access(partial(Manifest.open, memory_limit=settings.memory), locate_members)
    browse(settings, access, lambda told: print(told, flush=True))


if __name__ == "__main__":
    run_job(main)
