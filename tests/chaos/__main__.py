"""The command: makes the inputs, runs every job undisturbed, then disturbed, and tells what came out."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path

from s3 import S3Server

from chaos.disturb import Disturbance, PhaseResult, Site, run_undisturbed
from chaos.faults import PHASES, draw_faults
from chaos.full_disk import FullDisk
from chaos.phases import make_phases
from chaos.store_proxy import StoreProxy
from chaos.table import as_text, as_values, is_well


def main() -> int:
    """Exit code 0 only if nothing was lost, doubled, skipped, repeated or unreadable, and nothing hung."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="decides which faults there are, and when")
    parser.add_argument("--output", type=Path, default=Path("out/chaos"), help="made anew")
    parser.add_argument("--faults", type=int, default=13, help="of each phase")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--training-steps", type=int, default=24)
    parser.add_argument("--size", type=int, default=12, help="source episodes, and episodes of a task in evaluation")
    parser.add_argument("--hang-s", type=float, default=300.0, help="a job that finishes nothing for so long hangs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    folder = arguments.output.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "logs").mkdir(parents=True)
    began = time.monotonic()
    server = S3Server(folder / "store")
    results: list[PhaseResult] = []
    with FullDisk() as disk, StoreProxy(server.port) as proxy:
        site = Site(folder, server, proxy, disk, arguments.hang_s)
        site.bucket.mkdir(parents=True)
        phases = [
            phase for phase in make_phases(arguments.training_steps, arguments.size) if phase.name in arguments.phases
        ]
        for phase in phases:
            phase.make_inputs(site.bucket)  # before the server starts, which would not see them for minutes
        server.start()
        try:
            for phase in phases:
                truth = folder / "undisturbed" / phase.name
                _say(f"{phase.name:10} undisturbed: {run_undisturbed(phase, site, truth):.0f} s")
                faults = draw_faults(arguments.seed, phase.name, arguments.faults)
                results.append(Disturbance(phase, faults, site, truth, _say).run())
                _write(folder, arguments.seed, results)
        finally:
            server.stop()
    well = is_well(results)
    _say(as_text(results))
    _say(f"{time.monotonic() - began:.0f} s; {'all is well' if well else 'NOT WELL'}: {folder / 'chaos.json'}")
    return 0 if well else 1


def _write(folder: Path, seed: int, results: list[PhaseResult]) -> None:
    (folder / "chaos.txt").write_text(as_text(results) + "\n")
    (folder / "chaos.json").write_text(json.dumps(as_values(seed, results), indent=1) + "\n")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
