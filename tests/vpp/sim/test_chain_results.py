"""Chains are counted as published results count them."""

from __future__ import annotations

from typing import Any

import pytest

from vpp.sim.chain_results import chain_results, summarise_chains


def row(number: int, position: int, success: bool) -> dict[str, Any]:
    return {"number": number, "position": position, "task": f"task {position}", "success": success}


ROWS = [
    *(row(0, position, True) for position in range(5)),
    *(row(1, position, position < 2) for position in range(3)),
    row(2, 0, False),
    row(3, 0, False),
]


def test_success_after_each_length_and_the_average_come_with_intervals() -> None:
    chains = summarise_chains(ROWS)["chains"]
    assert {length: (rate["k"], rate["n"]) for length, rate in chains["success_after"].items()} == {
        "1": (2, 4), "2": (2, 4), "3": (1, 4), "4": (1, 4), "5": (1, 4)
    }  # fmt: skip
    assert chains["success_after"]["3"]["low"] == pytest.approx(0.0456, abs=1e-4)
    average = chains["average_length"]
    assert average["mean"] == pytest.approx(sum(rate["rate"] for rate in chains["success_after"].values())) == 7 / 4
    assert 0 < average["low"] < 1 < 3 < average["high"] < 5


def test_each_chain_says_how_many_tasks_were_solved_and_which_were_begun() -> None:
    results = chain_results(list(reversed(ROWS)))
    assert [(chain["chain"], chain["num_solved"]) for chain in results] == [(0, 5), (1, 2), (2, 0), (3, 0)]
    assert results[1]["begun"] == ["task 0", "task 1", "task 2"]


def test_no_chains_have_no_average() -> None:
    chains = summarise_chains([])["chains"]
    assert (chains["average_length"], chains["success_after"]["1"]["rate"]) == (
        {"mean": None, "low": 0, "high": 5},
        None,
    )
