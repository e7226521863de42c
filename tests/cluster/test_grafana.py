"""The Grafana dashboard draws every metric that the code defines, and no other."""

from __future__ import annotations

import json
import re

from running import ROOT

from runtime.metrics import METRICS, series

DASHBOARD = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
KNOWN = {name: metric for metric in METRICS for name in series(metric)}


def used(expression: str) -> list[tuple[str, str]]:
    """Names of series and what is in braces after each."""
    return re.findall(r"\b(ray_\w+)\{(.*?)\}", expression)


def test_every_expression_uses_series_that_the_code_tells() -> None:
    for expression in EXPRESSIONS:
        assert used(expression)
        assert {name for name, _ in used(expression)} <= set(KNOWN), expression
        assert len(re.findall(r"\bray_", expression)) == len(used(expression)), expression
        assert expression.count("(") == expression.count(")")


def test_every_metric_is_drawn() -> None:
    drawn = {KNOWN[name] for expression in EXPRESSIONS for name, _ in used(expression)}
    assert drawn == set(METRICS)


def test_the_readme_tells_every_metric() -> None:
    rows = re.findall(r"^\| `(vpp_\w+)` \| (.*?) \| (.*) \|$", (ROOT / "cluster" / "README.md").read_text(), re.M)
    told = {name: (tuple(re.findall(r"`(\w+)`", tags)), what) for name, tags, what in rows}
    assert told == {name: (metric.tags, metric.what) for name, metric in METRICS.items()}


def test_tags_are_those_of_the_metric() -> None:
    for expression in EXPRESSIONS:
        (metric,) = {KNOWN[name] for name, _ in used(expression)}
        known = {"run", "le", *METRICS[metric].tags}
        filters = {tag for _, braces in used(expression) for tag in re.findall(r"(\w+)(?:=~|!=|=)", braces)}
        grouped = {tag for tags in re.findall(r"by \((.*?)\)", expression) for tag in tags.split(", ")}
        assert filters | grouped <= known, expression
        assert all('run=~"$run"' in braces for _, braces in used(expression)), expression


def test_legends_name_tags_that_are_left() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            grouped = {tag for tags in re.findall(r"by \((.*?)\)", target["expr"]) for tag in tags.split(", ")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped


def test_counters_are_read_as_rates_or_sums_and_gauges_as_they_are() -> None:
    for expression in EXPRESSIONS:
        for name, _ in used(expression):
            assert ("rate(" in expression) <= (METRICS[KNOWN[name]].kind != "gauge"), expression


def test_grafana_can_import_it() -> None:
    assert DASHBOARD["title"]
    assert isinstance(DASHBOARD["schemaVersion"], int)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    asked = {"run", "datasource"} | set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert {name for name in asked if not name.startswith("__")} == set(variables)
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
