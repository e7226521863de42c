"""What became of CALVIN's chains: how many tasks in a row were solved, as published results count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vpp.sim.chains import CHAIN_LENGTH
from vpp.sim.intervals import bounded_mean, wilson

CHAINS = "chains.json"


def summarise_chains(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`chains`: how often 1 to 5 tasks in a row were solved, and the average number, with 95 % intervals.

    Args:
        rows: Values of `vpp.sim.evaluation_rows.Row`.
    """
    solved = [chain["num_solved"] for chain in chain_results(rows)]
    success_after = {}
    for length in range(1, CHAIN_LENGTH + 1):
        k, n = sum(number >= length for number in solved), len(solved)
        low, high = wilson(k, n)
        success_after[str(length)] = {"n": n, "k": k, "rate": k / n if n else None, "low": low, "high": high}
    low, high = bounded_mean(solved, CHAIN_LENGTH)
    average = {"mean": sum(solved) / len(solved) if solved else None, "low": low, "high": high}
    method = "rates: Wilson; average: Agresti and Coull's, for numbers from 0 to 5"
    return {"chains": {"success_after": success_after, "average_length": average, "intervals": method}}


def chain_results(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each chain's number, how many tasks were solved in a row, and those that were begun, in their order."""
    begun: dict[int, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["number"], row["position"])):
        begun.setdefault(row["number"], []).append(row)
    return [
        {"chain": number, "num_solved": sum(row["success"] for row in tasks), "begun": [row["task"] for row in tasks]}
        for number, tasks in begun.items()
    ]
