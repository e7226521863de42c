"""Runs a policy in MetaWorld or CALVIN and counts what it solves. See `--help`."""

import json
import logging
from typing import Any

from ray.exceptions import RayError

from runtime.job import run_job
from runtime.settings import load_settings, to_mapping
from vpp.sim.evaluate import evaluate
from vpp.sim.evaluation_request import EvaluateSettings


def main() -> int:
    """Parses, logs the resolved settings, runs, prints how often each task was solved."""
    settings = load_settings(EvaluateSettings, "evaluate")
    logging.info("settings: %s", json.dumps(to_mapping(settings)))
    try:
        summary = evaluate(settings)
    except (RayError, RuntimeError) as error:
        logging.error("stopped: %s", str(error).strip().splitlines()[-1])
        logging.error("finished episodes are kept: the same command continues")
        return 1
    print(f"{'task':32} {'solved':>9} {'rate':>6}  95 % interval")
    for task, rate in [*summary["success"].items(), *summary["groups"].items()]:
        print(f"{task:32} {rate['k']:>4}/{rate['n']:<4} {rate['rate']:>6.3f}  {rate['low']:.3f} to {rate['high']:.3f}")
    print(f"{'mean over tasks':32} {'':9} {summary['mean']:>6.3f}")
    if "chains" in summary:
        _print_chains(summary["chains"])
    if summary["num_not_run"]:
        print(f"{summary['num_not_run']} episodes could not be run and count as not solved; see their reason")
    print(f"summary: {settings.output.rstrip('/')}/summary.json")
    return 0


def _print_chains(chains: dict[str, Any]) -> None:
    for length, rate in chains["success_after"].items():
        interval = f"{rate['low']:.3f} to {rate['high']:.3f}"
        print(f"{length + ' in a row':32} {rate['k']:>4}/{rate['n']:<4} {rate['rate']:>6.3f}  {interval}")
    average = chains["average_length"]
    interval = f"{average['low']:.3f} to {average['high']:.3f}"
    print(f"{'average length of a chain':32} {'':9} {average['mean']:>6.3f}  {interval}")


if __name__ == "__main__":
    run_job(main)
