"""Trainings and evaluations, one or several side by side: losses, predictions, success, and which settings differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from schemas.errors import UsageError
from vpp.browse.not_there import NotThere
from vpp.browse.page import page, section, short
from vpp.browse.snapshot import Snapshot
from vpp.report.damage import naming_damage
from vpp.report.evaluation_section import evaluations_part
from vpp.report.find_runs import Kind, Run
from vpp.report.html import Html, inside, table, tag
from vpp.report.line_chart import Series, line_chart
from vpp.report.run_curves import TrainingLog
from vpp.report.training_section import training_part

_MOST = 6  # as many as there are colours
_HELD_OUT: dict[Kind, tuple[str, str]] = {
    "stage1": ("Held-out PSNR, in dB", "val/psnr"),
    "stage2": ("Squared error of held-out actions", "val/action_mse"),
}


def runs_page(snapshot: Snapshot, chosen: Sequence[str]) -> str:
    """The page of some runs.

    Args:
        snapshot: What lies in the folder.
        chosen: Paths of runs in there, one to six.

    Raises:
        NotThere: If there is no such run.
        UsageError: If there are too many.
    """
    paths = list(dict.fromkeys(chosen))
    if not paths:
        raise NotThere("choose a training or an evaluation on the first page")
    if len(paths) > _MOST:
        raise UsageError(f"expected at most {_MOST} runs beside each other, found {len(paths)}")
    runs = [snapshot.run(path) for path in paths]
    with naming_damage(snapshot.folder):
        parts = [
            _trainings(snapshot, title, [run for run in runs if run.kind == kind]) for kind, title in _TITLES.items()
        ]
        evaluations = [snapshot.evaluation(run) for run in runs if run.kind == "evaluation"]
        if evaluations:
            parts.append(section("Success", evaluations_part(evaluations)))
        parts.append(_settings(runs))
    return page(snapshot, " beside ".join(run.name for run in runs), *parts)


_TITLES: dict[Kind, str] = {"stage1": "Video model", "stage2": "Policy"}


def _trainings(snapshot: Snapshot, title: str, runs: Sequence[Run]) -> Html:
    if not runs:
        return Html()
    logs = [snapshot.log(run) for run in runs]
    sides = (
        tag("div", tag("h3", run.name), training_part(run, log), class_="side")
        for run, log in zip(runs, logs, strict=True)
    )
    return section(title, _together(runs, logs) if len(runs) > 1 else Html(), tag("div", *sides, class_="sides"))


def _together(runs: Sequence[Run], logs: Sequence[TrainingLog]) -> Html:
    """Curves of several trainings in the same charts."""
    names = [run.name for run in runs]
    loss = [Series(name, log.loss) for name, log in zip(names, logs, strict=True)]
    told, metric = _HELD_OUT[runs[0].kind]
    held_out = [Series(name, log.points(metric)) for name, log in zip(names, logs, strict=True)]
    charts = (line_chart("Training loss", loss, "step", is_log=True), line_chart(told, held_out, "step"))
    return tag("div", *charts, class_="charts")


def _settings(runs: Sequence[Run]) -> Html:
    """Of several runs what differs, of one run all."""
    flat = [dict(_leaves("", run.record)) for run in runs]
    names = sorted({name for values in flat for name in values})
    shown = [name for name in names if len(runs) == 1 or len({values.get(name) for values in flat}) > 1]
    lines = [[name, *(short(values[name]) if name in values else None for values in flat)] for name in shown]
    title = "Settings" if len(runs) == 1 else "Settings that differ"
    whole = table(["setting", *(run.name for run in runs)], lines) if lines else tag("p", "None.")
    return section(title, inside(whole))


def _leaves(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Names and values of nested settings, as text.

    >>> _leaves("", {"train": {"steps": 4}, "tasks": ["a"]})
    [('train.steps', '4'), ('tasks', '["a"]')]
    """
    if isinstance(value, dict) and value:
        return [
            leaf for name, inner in value.items() for leaf in _leaves(f"{prefix}.{name}" if prefix else name, inner)
        ]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
