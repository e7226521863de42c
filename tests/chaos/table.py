"""What was done and what came out, as text and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chaos.disturb import PhaseResult
from chaos.faults import KINDS, TOLD, by_kind

_COUNTS = ("lost", "doubled", "skipped", "repeated", "unreadable", "differing", "hangs")


def is_well(results: Sequence[PhaseResult]) -> bool:
    """Whether nothing at all was lost."""
    return all(result.damage.is_none for result in results)


def as_text(results: Sequence[PhaseResult]) -> str:
    """Three tables: faults by kind and phase, what came out, and what else there is to tell."""
    counts = {result.phase: by_kind([one.fault for one in result.injections]) for result in results}
    lines = [_row("fault", [*counts, "all"], 48)]
    for kind in KINDS:
        numbers = [counts[phase][kind] for phase in counts]
        lines.append(_row(TOLD[kind], [*numbers, sum(numbers)], 48))
    totals = [len(result.injections) for result in results]
    lines += [_row("all", [*totals, sum(totals)], 48), ""]
    lines.append(_row("what came out", [*counts, "all"], 48))
    for name, values in _outcome(results).items():
        lines.append(_row(name, [*values, sum(values)], 48))
    for result in results:
        lines += [f"not injected in {result.phase}: {TOLD[kind]}: {why}" for kind, why in result.left_out.items()]
        lines += [f"{result.phase}: {note}" for note in result.damage.notes]
    return "\n".join(lines)


def _outcome(results: Sequence[PhaseResult]) -> dict[str, list[int]]:
    by_name = {
        "outputs made": [result.runs for result in results],
        "commands run": [result.commands for result in results],
        "commands that failed undisturbed": [result.failed_alone for result in results],
        "faults after which the command went on": [_ridden_out(result) for result in results],
        "faults after which it was run again": [len(result.injections) - _ridden_out(result) for result in results],
        "seconds": [round(result.seconds) for result in results],
    }
    return by_name | {name: [getattr(result.damage, name) for result in results] for name in _COUNTS}


def _ridden_out(result: PhaseResult) -> int:
    return sum(injection.exit_code == 0 for injection in result.injections)


def _row(name: object, values: Sequence[object], width: int) -> str:
    return f"{name!s:{width}}" + "".join(f"{value!s:>11}" for value in values)


def as_values(seed: int, results: Sequence[PhaseResult]) -> dict[str, Any]:
    """Everything, for `chaos.json`."""
    totals = {name: sum(getattr(result.damage, name) for result in results) for name in _COUNTS}
    return {
        "seed": seed,
        "is_well": is_well(results),
        "faults": sum(len(result.injections) for result in results),
        **totals,
        "phases": [asdict(result) for result in results],
    }
