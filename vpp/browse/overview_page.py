"""The first page: how many clips and episodes each dataset has and what was turned away, and which runs there are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from schemas.errors import UsageError
from vpp.browse.dataset import Dataset
from vpp.browse.page import address, page, section
from vpp.browse.snapshot import Snapshot
from vpp.report.damage import naming_damage
from vpp.report.evaluation_section import Evaluation
from vpp.report.find_runs import Run
from vpp.report.html import Html, inside, number, table, tag


def overview_page(snapshot: Snapshot, query: Mapping[str, str]) -> str:
    """Counts of each dataset, and a form that puts runs side by side."""
    datasets = [_dataset(one) for one in snapshot.datasets.values()]
    runs = [run for run in snapshot.runs if run.kind != "dataset"]
    return page(snapshot, "Overview", *datasets, _runs(snapshot, runs) if runs else Html())


def _dataset(dataset: Dataset) -> Html:
    title = f"Data: {dataset.run.name}"
    try:
        counts = dataset.counts()
    except UsageError as error:  # the others are sound
        return section(title, tag("p", str(error), class_="fault"))
    data = dataset.run.path
    numbers: Counter[tuple[str, str, str]] = Counter()
    hours: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for row in counts:
        key = (row["product"], row["dataset"] or "", row["status"] or "")
        numbers[key] += row["num"]
        hours[key] += row["hours"] or 0
    lines = [
        [name, product, status, _linked(count, data, product, dataset=name, status=status), hours[key] or None]
        for key, count in numbers.items()
        for product, name, status in [key]
    ]
    turned_away = [
        [row["dataset"], row["product"], row["status"],
         tag("a", row["reason"] or "without a reason", href=_list(data, row["product"], **_filters(row))),
         row["num"], row["example"]]
        for row in counts if row["status"] != "written"
    ]  # fmt: skip
    stand_ins = any(row["has_stand_ins"] for row in counts)
    told = "Made with stand-ins of random weights: it shows the way, not what is possible."
    return section(
        title,
        tag("p", told, class_="note") if stand_ins else Html(),
        table(["dataset", "product", "status", "number", "hours"], lines),
        inside(
            tag("h3", "Turned away"),
            table(["dataset", "product", "status", "reason", "number", "example"], turned_away),
        )
        if turned_away
        else tag("p", "Nothing was turned away."),
    )


def _linked(count: int, data: str, product: str, **filters: str) -> Html:
    return tag("a", number(count), href=_list(data, product, **filters))


def _list(data: str, product: str, **filters: str) -> str:
    return address(f"/{product}", data=data, **filters)


def _filters(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: row[name] or "" for name in ("dataset", "status", "reason")}


def _runs(snapshot: Snapshot, runs: list[Run]) -> Html:
    lines = [
        [tag("input", type="checkbox", name_="run", value=run.path, aria_label=f"choose {run.name}"),
         tag("a", run.name, href=address("/runs", run=[run.path])), _KINDS[run.kind], _result(snapshot, run),
         run.record.get("commit")]
        for run in runs
    ]  # fmt: skip
    form = tag(
        "form",
        table(["", "folder", "job", "result", "commit"], lines),
        tag("button", "Show side by side"),
        method="get",
        action="/runs",
    )
    return section("Trainings and evaluations", form)


_KINDS = {"stage1": "video model", "stage2": "policy", "evaluation": "evaluation"}


def _result(snapshot: Snapshot, run: Run) -> str:
    """An evaluation's; those of trainings stand in long logs, which only their own page reads."""
    if run.kind != "evaluation":
        return ""
    try:
        with naming_damage(run.url):
            return _told(snapshot.evaluation(run))
    except UsageError as error:
        return str(error)


def _told(evaluation: Evaluation) -> str:
    summary = evaluation.summary
    if not summary:
        return f"{evaluation.who}: has not ended"
    if summary.get("mean") is None:
        return f"{evaluation.who}: no episode could be run"
    if "chains" in summary:
        return f"{evaluation.who}: {summary['chains']['average_length']['mean']:.2f} tasks in a row"
    return f"{evaluation.who}: {100 * summary['mean']:.0f} % solved"
