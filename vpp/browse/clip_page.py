"""One clip: it plays, its frames stand side by side, its text and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import DataError
from schemas.shard import CAPTION, METADATA, VIDEO
from vpp.browse.list_page import member_address
from vpp.browse.page import address, page, section
from vpp.browse.provenance import facts, provenance_part, text_part, turned_away
from vpp.browse.snapshot import Snapshot
from vpp.report.html import Html, film, tag


def clip_page(snapshot: Snapshot, query: Mapping[str, str]) -> str:
    """The page of a clip."""
    dataset = snapshot.dataset(query.get("data"))
    row, data = dataset.row("clips", query.get("id", "")), dataset.run.path
    seen = Html()
    if row["status"] == "written":
        strip = address("/frames", data=data, id=row["clip_id"])
        indices = ", ".join(map(str, row["frame_indices"] or ()))
        seen = section(
            "Frames",
            tag(
                "div",
                film(member_address(data, "clips", row["clip_id"], VIDEO), "the clip"),
                tag(
                    "div",
                    tag("img", src=strip, alt="all frames, in reading order", class_="strip"),
                    tag("p", f"Frames of the source: {indices}", class_="faint"),
                ),
                class_="beside",
            ),
        )
    try:
        text = text_part(row, dataset.read("clips", row, (CAPTION, METADATA)))
    except DataError as error:
        text = section("Text", tag("p", str(error), class_="fault"))
    return page(
        snapshot,
        row["caption"] or f"Clip {row['clip_id']}",
        facts(data, "clips", row),
        turned_away(row),
        seen,
        text,
        provenance_part(data, "clips", row),
        data=data,
    )
