"""The part of the report on evaluations: success by task with Wilson's intervals, and videos of episodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.plain_json import parse_json
from schemas.storage import exists, join, list_names, read_bytes
from vpp.report.damage import naming_damage
from vpp.report.find_runs import Run
from vpp.report.html import Html, film, inside, link, table, tag
from vpp.report.interval_chart import Rate, interval_chart
from vpp.sim.evaluation_request import EXPERT, RANDOM
from vpp.sim.evaluation_rows import SUMMARY, Row, read_rows, video_path
from vpp.sim.intervals import wilson

_VIDEOS = 6
_CONDITIONS = ("benchmark", "seed", "max_steps", "episodes")
ALL = "all episodes"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as the page shows it.

    Attributes:
        run: The evaluation.
        summary: Its summary; empty before it has ended.
        rates: Success by task, by group where there are several, and of all.
        filmed: Rows of some episodes that have videos.
    """

    run: Run
    summary: dict[str, Any]
    rates: dict[str, Rate] = field(default_factory=dict)
    filmed: Sequence[Row] = ()

    @property
    def title(self) -> str:
        """Who acts, what it is told, and where it lies."""
        return f"{self.who} ({self.run.name})"

    @property
    def who(self) -> str:
        """Who acts, and what it is told."""
        policy = str(self.run.record.get("policy", "unknown"))
        named = policy if "/" not in policy else "policy"  # a folder, or who else acted, such as a benchmark's clone
        who = {EXPERT: "scripted expert", RANDOM: "random actions"}.get(policy, named)
        return f"{who}, told another task's instruction" if self.run.record.get("instructions") == "next" else who


def read_evaluation(run: Run) -> Evaluation:
    """Reads an evaluation's summary, and the rows of the episodes whose videos are shown.

    Raises:
        UsageError: If they are something else.
    """
    with naming_damage(run.url):
        return _read(run)


def _read(run: Run) -> Evaluation:
    url = join(run.url, SUMMARY)
    summary: dict[str, Any] = parse_json(read_bytes(url)) if exists(url) else {}
    success = _rates(summary.get("success", {}))
    groups = _rates(summary.get("groups", {}))
    rates = success | (groups if len(groups) > 1 else {})
    if len(success) > 1:
        k, n = sum(rate.k for rate in success.values()), sum(rate.n for rate in success.values())
        rates[ALL] = Rate(k, n, *wilson(k, n))
    numbers = [int(name[:6]) for name in list_names(join(run.url, "videos")) if re.fullmatch(r"\d{6}\.mp4", name)]
    shown = (
        sorted({numbers[place * (len(numbers) - 1) // max(1, _VIDEOS - 1)] for place in range(_VIDEOS)})
        if numbers
        else []
    )
    return Evaluation(run, summary, rates, read_rows(run.url, shown))


def evaluations_part(evaluations: Sequence[Evaluation]) -> Html:
    """One chart and one table for all, and the videos of each."""
    ended = [evaluation for evaluation in evaluations if evaluation.rates]
    names = [evaluation.title for evaluation in ended]
    tasks = dict.fromkeys(task for evaluation in ended for task in evaluation.rates if task != ALL)
    order = [*tasks, *([ALL] if len(tasks) > 1 else [])]
    by_task = {task: [evaluation.rates.get(task) for evaluation in ended] for task in order}
    lines = [
        [evaluation.who, evaluation.run.name, evaluation.summary.get("num_episodes"),
         _percent(evaluation.summary.get("mean")), evaluation.run.record.get("max_steps"),
         evaluation.summary.get("num_not_run")]
        for evaluation in evaluations
    ]  # fmt: skip
    head = ["who acts", "folder", "episodes", "mean over tasks, %", "steps at most", "could not be run"]
    half = len(order) if len(order) < 4 else -(-len(order) // 2)  # side by side where there is room
    halves = [{task: by_task[task] for task in some} for some in (order[:half], order[half:]) if some]
    charts = (interval_chart("Episodes solved, with 95 % intervals (Wilson)", names, some) for some in halves)
    return inside(
        tag("div", *charts, class_="charts"),
        tag("p", "A bar holds the true rate with 95 % confidence: the more episodes, the shorter.", class_="faint"),
        table(head, lines),
        _chains(ended),
        *(tag("p", f"{one.run.name} has not ended: the same command continues.", class_="missing")
          for one in evaluations if not one.summary),
        _unlike(ended),
        *(_films(one) for one in evaluations if one.filmed),
    )  # fmt: skip


def _chains(evaluations: Sequence[Evaluation]) -> Html:
    """What CALVIN's results are published as: how often 1 to 5 tasks in a row were solved, and how many on average."""
    found = [(one, one.summary["chains"]) for one in evaluations if "chains" in one.summary]
    if not found:
        return Html()
    lengths = list(found[0][1]["success_after"])
    lines = [
        [one.who, one.run.name,
         *(_percent(chains["success_after"][length]["rate"]) for length in lengths),
         chains["average_length"]["mean"]]
        for one, chains in found
    ]  # fmt: skip
    head = ["who acts", "folder", *(f"{length} in a row, %" for length in lengths), "average in a row"]
    return table(head, lines)


def _films(evaluation: Evaluation) -> Html:
    films = []
    of_episode: dict[int, list[Row]] = {}
    for row in evaluation.filmed:
        of_episode.setdefault(row.number, []).append(row)
    for number, rows in of_episode.items():
        solved, steps = sum(row.success for row in rows), sum(row.num_steps for row in rows)
        outcome = "solved" if solved == len(rows) else f"{solved} of {len(rows)} solved" if solved else "not solved"
        source = link(evaluation.run.inside(video_path(number)))
        told = tag("span", f"{outcome} in {steps} steps", class_="good" if solved == len(rows) else "bad")
        films.append(film(source, tag("b", ", ".join(row.task for row in rows)), told))
    heading = f"Episodes: {evaluation.title}"
    return inside(tag("h4", heading), tag("div", *films, class_="films"))


def _unlike(evaluations: Sequence[Evaluation]) -> Html:
    """A word where rates stand side by side that were not counted under the same conditions."""
    found = {name: {str(one.run.record.get(name)) for one in evaluations} for name in _CONDITIONS}
    unlike = [name.replace("_", " ") for name, values in found.items() if len(values) > 1]
    told = f"Not the same for all, so compare with care: {', '.join(unlike)}."
    return tag("p", told, class_="note") if unlike else Html()


def _percent(rate: float | None) -> float | None:
    return None if rate is None else 100 * rate


def _rates(values: dict[str, Any]) -> dict[str, Rate]:
    return {name: Rate(rate["k"], rate["n"], rate["low"], rate["high"]) for name, rate in values.items()}
