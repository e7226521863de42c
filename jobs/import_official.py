"""Makes our policy's folder from the authors' stage 2 checkpoint and its video model. See `--help`."""

import json
import logging

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from vpp.policy.import_job import ImportSettings, import_official


def main() -> int:
    """Parses, imports, and lists what was taken and what was ignored."""
    settings = load_settings(ImportSettings, "import_official")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    imported = import_official(settings)
    for name in imported.taken:
        print(f"taken    {name}")
    for name, reason in imported.ignored:
        print(f"ignored  {name}: {reason}")
    print(f"policy: {settings.output} with {len(imported.taken)} tensors, {len(imported.ignored)} ignored")
    return 0


if __name__ == "__main__":
    run_job(main)
