"""The part of the report on data: how many clips and episodes, what was turned away and why, and clips that play."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vpp.report.find_runs import Run
from vpp.report.html import Html, film, inside, link, table, tag


@dataclass(frozen=True)
class Clip:
    """A clip to look at.

    Attributes:
        caption: Of the clip.
        place: Where it comes from.
        video: An MP4 of a few tens of kilobytes, which the page holds itself.
        fault: Why there is none; empty where there is.
    """

    caption: str
    place: str
    video: bytes
    fault: str = ""


@dataclass(frozen=True)
class DatasetView:
    """What the manifest of a dataset says.

    Attributes:
        run: The dataset.
        counts: Rows with `product`, `dataset`, `status`, `num`, `hours`.
        rejected: Rows with `product`, `dataset`, `status`, `reason`, `num`, `example`.
        made_of: Rows with `dataset`, `product`, `num_written`, `num_captions`, `cameras`, `text_encoders`, ...
        clips: To look at.
    """

    run: Run
    counts: Sequence[Mapping[str, Any]]
    rejected: Sequence[Mapping[str, Any]]
    made_of: Sequence[Mapping[str, Any]]
    clips: Sequence[Clip]

    def written(self, product: str) -> int:
        """How many clips or episodes there are."""
        return sum(row["num"] for row in self.counts if row["product"] == product and row["status"] == "written")

    def stand_ins(self) -> list[str]:
        """Text encoders and latent codecs of random weights that were used in the place of real ones."""
        rows = [row for row in self.made_of if row["has_stand_ins"]]
        return sorted({name for row in rows for name in [*(row["text_encoders"] or ()), *(row["latent_codecs"] or ())]})


def dataset_part(view: DatasetView) -> Html:
    """A dataset's tables and clips."""
    made_of = {(row["product"], row["dataset"]): row for row in view.made_of}
    counts = []
    for row in view.counts:
        known = made_of.get((row["product"], row["dataset"]), {})
        is_written = row["status"] == "written"
        captions, cameras = known.get("num_captions"), ", ".join(known.get("cameras") or [])
        counts.append(
            [row["dataset"], row["product"], row["status"], row["num"], row["hours"]]
            + ([captions, cameras] if is_written else [None, ""])
        )
    reasons = [[row[name] for name in ("dataset", "product", "reason", "num", "example")] for row in view.rejected]
    sheet = link(view.run.inside("contact_sheet.html"))
    return inside(
        table(["dataset", "product", "status", "number", "hours", "captions", "cameras"], counts),
        tag("div", *map(_clip, view.clips), class_="films small"),
        tag("p", "More clips, frame by frame: ", tag("a", "contact sheet", href=sheet), "."),
        inside(tag("h4", "Turned away"), table(["dataset", "product", "reason", "number", "example"], reasons))
        if reasons
        else tag("p", "Nothing was turned away."),
    )


def _clip(clip: Clip) -> Html:
    text = inside(tag("b", clip.caption), tag("span", clip.place, class_="faint"))
    if clip.fault:
        return tag("figure", tag("p", clip.fault, class_="fault"), tag("figcaption", text), class_="film")
    return film(f"data:video/mp4;base64,{b64encode(clip.video).decode()}", text, has_controls=False)
