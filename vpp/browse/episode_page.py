"""One episode: all cameras, and its actions and proprioception over its frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import DataError
from schemas.shard import ACTIONS_NPY, CAPTION, METADATA, PROPRIO_NPY, VIDEO
from vpp.browse.action_plot import action_plots, no_plot
from vpp.browse.dataset import Dataset
from vpp.browse.list_page import member_address
from vpp.browse.page import page, section
from vpp.browse.provenance import facts, provenance_part, text_part, turned_away
from vpp.browse.snapshot import Snapshot
from vpp.report.html import Html, film, inside, tag

_PLOTS = {"Actions": ACTIONS_NPY, "Proprioception": PROPRIO_NPY}


def episode_page(snapshot: Snapshot, query: Mapping[str, str]) -> str:
    """The page of an episode."""
    dataset = snapshot.dataset(query.get("data"))
    row, data = dataset.row("episodes", query.get("id", "")), dataset.run.path
    names = [str(member["name"]) for member in row["members"] or ()]
    films = [
        film(member_address(data, "episodes", row["episode_id"], name), name.removesuffix(f".{VIDEO}"))
        for name in names
        if name.endswith(f".{VIDEO}")
    ]
    return page(
        snapshot,
        row["caption"] or f"Episode {row['episode_id']}",
        facts(data, "episodes", row),
        turned_away(row),
        section("Cameras", tag("div", *films, class_="films small")) if films else Html(),
        _told(dataset, row) if row["status"] == "written" else Html(),
        provenance_part(data, "episodes", row),
        data=data,
    )


def _told(dataset: Dataset, row: dict[str, Any]) -> Html:
    """Plots and text, all read at once."""
    try:
        members = dataset.read("episodes", row, (*_PLOTS.values(), CAPTION, METADATA))
    except DataError as error:
        return section("Actions", tag("p", str(error), class_="fault"))
    charts = []
    for title, name in _PLOTS.items():
        try:
            charts.append(action_plots(title, members[name]) if name in members else no_plot(title))
        except DataError as error:
            charts.append(tag("p", str(error), class_="fault"))
    plots = section("Actions", tag("div", *charts, class_="charts"))
    return inside(plots, text_part(row, members))
