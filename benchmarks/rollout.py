"""Episodes a second with two environments against one, where the policy costs next to nothing.

    python benchmarks/rollout.py [--json] [--rounds 3] [--episodes 30] [--policy random]

Each side is `evaluate` as the job runs it, on one Ray that was started before: MetaWorld's drawer-open, no videos. The
sides take turns. An environment is a process that first imports the simulator and draws its scenes, which takes seconds
and is done once; so each side is run with two numbers of episodes, and the rate is that of the episodes between them.
`ratio_with_start` is that of the longer runs with everything in them. Told are medians over rounds; of ratios, those
of each round. On two cores the ratio should be at least 1.6 where nothing else runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time

import measure

from runtime.ray_cluster import start_ray
from vpp.sim.evaluate import evaluate
from vpp.sim.evaluation_request import EvaluateSettings

TASK = "drawer-open-v3"


def seconds(policy: str, num_environments: int, num_episodes: int) -> float:
    """What an evaluation takes."""
    with tempfile.TemporaryDirectory() as folder:
        settings = EvaluateSettings(
            policy=policy, output=folder, tasks=(TASK,), episodes=num_episodes, num_environments=num_environments
        )
        began = time.perf_counter()
        summary = evaluate(settings)
        taken = time.perf_counter() - began
    if summary["num_not_run"] or summary["num_episodes"] != num_episodes:
        raise RuntimeError(f"expected {num_episodes} episodes, found {summary}")
    return taken


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=30, help="more in the longer run than in the shorter")
    parser.add_argument("--policy", choices=("expert", "random"), default="random")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)

    start_ray()
    few, many = 4, 4 + arguments.episodes
    rates: dict[int, list[float]] = {1: [], 2: []}
    rates_with_start: dict[int, list[float]] = {1: [], 2: []}
    load = os.getloadavg()[0]
    for number in range(arguments.rounds):
        for num_environments in (1, 2) if number % 2 else (2, 1):
            short, long = (seconds(arguments.policy, num_environments, count) for count in (few, many))
            rates[num_environments].append(arguments.episodes / (long - short))
            rates_with_start[num_environments].append(many / long)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    ratios_with_start = [two / one for one, two in zip(rates_with_start[1], rates_with_start[2], strict=True)]
    measure.finish(
        {
            "episodes_per_s_1_environment": statistics.median(rates[1]),
            "episodes_per_s_2_environments": statistics.median(rates[2]),
            "ratio": statistics.median(ratios),
            "lowest_ratio": min(ratios),
            "ratio_with_start": statistics.median(ratios_with_start),
            "policy": arguments.policy,
            "rounds": arguments.rounds,
            "episodes": arguments.episodes,
            "cpus": len(os.sched_getaffinity(0)),
            "load_average_before": load,
        },
        arguments.json,
    )


if __name__ == "__main__":
    main()
