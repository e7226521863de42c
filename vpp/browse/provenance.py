"""What is known of a sample beside its pictures: text and record of its shard, where it lies, what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schemas.plain_json import parse_json
from schemas.shard import CAPTION, METADATA, Product
from vpp.browse.dataset import id_column
from vpp.browse.list_page import member_address
from vpp.browse.page import address, section
from vpp.report.html import Html, inside, number, table, tag

_MOST_CHARACTERS = 20_000
_SHOWN = (
    "source_url",
    "source_episode",
    "split",
    "level",
    "source_fps",
    "decoder",
    "video_encoder",
    "text_encoder",
    "latent_codec",
    "sha256",
)


def facts(data: str, product: Product, row: Mapping[str, Any]) -> Html:
    """A line that says where a sample comes from, with links to all that come from the same episode."""
    episode, dataset = row["source_episode"] or "", row["dataset"] or ""
    links = (
        tag("a", name, href=address(f"/{name}", data=data, dataset=dataset, episode=episode))
        for name in ("clips", "episodes")
    )
    camera = row.get("camera") or ", ".join(row.get("cameras") or ())
    frames = f"frames {number(row['start_frame'])} to {number(row['end_frame'])}"
    told = f"{dataset} · {number(row['split'])} · {camera or '-'} · {frames} of {episode or '-'}"
    if not episode:
        return tag("p", told, class_="faint")
    return tag("p", f"{told}: its ", next(links), " and ", next(links), class_="faint")


def turned_away(row: Mapping[str, Any]) -> Html:
    """Why there is no sample, where there is none."""
    if row["status"] == "written":
        return Html()
    why = tag("b", f"{row['status']}: {row['reason'] or 'without a reason'}")
    return tag("p", why, " ", row["detail"] or "", class_="note")


def text_part(row: Mapping[str, Any], members: Mapping[str, bytes]) -> Html:
    """The text and the record that stand in the shard; what is no text is shown as far as it is."""
    parts = []
    if CAPTION in members:
        parts.append(tag("p", _text(members[CAPTION])))
    encoder = f"Text embedding: {row['text_encoder'] or 'none'}"
    parts.append(tag("p", f"{encoder}{', random weights' * bool(row['text_encoder_is_stand_in'])}", class_="faint"))
    if METADATA in members:
        parts.append(tag("details", tag("summary", "JSON in the shard"), tag("pre", _record(members[METADATA]))))
    return section("Text", *parts)


def provenance_part(data: str, product: Product, row: Mapping[str, Any]) -> Html:
    """The columns of the manifest that say what made it, and where its members lie in the tar."""
    identity = row[id_column(product)]
    columns = [[name.replace("_", " "), str(number(row[name]))] for name in _SHOWN if row[name] not in (None, "")]
    members = [
        [tag("a", member["name"], href=member_address(data, product, identity, str(member["name"]))),
         member["offset"], member["num_bytes"]]
        for member in row["members"] or ()
    ]  # fmt: skip
    place = tag("p", "In ", tag("code", f"{product}/shards/{row['shard']}"), ":") if row["shard"] else Html()
    return section(
        "Provenance",
        table(["column", "value"], [[id_column(product).replace("_", " "), identity], *columns]),
        inside(place, table(["member", "first byte", "bytes"], members)) if members else Html(),
    )


def _text(content: bytes) -> str:
    text = content.decode(errors="replace")
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def _record(content: bytes) -> str:
    try:
        return _text(json.dumps(parse_json(content), indent=1, ensure_ascii=False).encode(errors="replace"))
    except ValueError:
        return _text(content)
