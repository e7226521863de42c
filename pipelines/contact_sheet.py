"""A contact sheet of a dataset: clips with their captions as one picture, and as one page on which they play."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from pipelines.encode_video import decode_video
from pipelines.query import Manifest
from pipelines.range_read import read_members
from schemas.storage import join, write_bytes

_FRAMES_SHOWN = (0, 5, 10, 15)
_THUMBNAIL_PX = 128
_MARGIN_PX = 16
_TEXT_PX = 40

# Clips in turn from each dataset and camera, in an order that mixes episodes but is always the same.
_CHOICE = """
    with ranked as (
        select *, row_number() over (partition by dataset, camera order by md5(clip_id)) as rank
        from clips where status = 'written'
    )
    select clip_id, dataset, camera, caption, source_episode, start_frame, end_frame, shard, members, num_bytes,
           text_encoder, text_encoder_is_stand_in
    from ranked order by rank, dataset, camera limit ?
"""

_STYLE = """
:root { color-scheme: light dark; --line: #d9dde3; --soft: #5c6673; --card: #fff; --page: #f5f6f8; --text: #1b2027 }
@media (prefers-color-scheme: dark) {
  :root { --line: #343b45; --soft: #9aa5b1; --card: #1d2229; --page: #14171c; --text: #e8ebef }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--text);
       font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem }
p { color: var(--soft); margin: 0 0 1rem }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line) }
th, td { padding: .4rem .75rem; text-align: left; border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { color: var(--soft); font-weight: 600 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.clips { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)) }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden }
video { display: block; width: 100%; aspect-ratio: 1 }
figcaption { padding: .6rem .75rem } figcaption small { display: block; color: var(--soft) }
"""


def write_contact_sheet(dataset_url: str, out_url: str, num_clips: int = 24) -> dict[str, Any]:
    """Writes `contact_sheet.png` and `contact_sheet.html`.

    Args:
        dataset_url: The output of a preprocessing run.
        out_url: Folder to write to.
        num_clips: How many clips to show; they are spread over datasets and cameras.

    Returns:
        The two URLs and the number of clips shown.
    """
    manifest = Manifest(dataset_url)
    rows = manifest.select(_CHOICE, [num_clips]).to_pylist()
    videos = [read_members(dataset_url, "clips", row)["mp4"] for row in rows]
    picture, page = join(out_url, "contact_sheet.png"), join(out_url, "contact_sheet.html")
    write_bytes(picture, _picture(rows, videos))
    tables = {"Counts": manifest.named("counts"), "Turned away": manifest.named("rejected")}
    write_bytes(page, _page(rows, videos, tables).encode())
    return {"picture": picture, "page": page, "num_clips": len(rows)}


def _picture(rows: Sequence[dict[str, Any]], videos: Sequence[bytes]) -> bytes:
    """Two columns of clips, four frames each over the caption, as PNG."""
    strip_px = _THUMBNAIL_PX * len(_FRAMES_SHOWN)
    cell_width, cell_height = strip_px + _MARGIN_PX, _THUMBNAIL_PX + _TEXT_PX + _MARGIN_PX
    columns = min(2, max(1, len(rows)))
    height = cell_height * -(-len(rows) // columns) + _MARGIN_PX
    sheet = Image.new("RGB", (cell_width * columns + _MARGIN_PX, height), "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(15), ImageFont.load_default(12)
    for number, (row, video) in enumerate(zip(rows, videos, strict=True)):
        left = _MARGIN_PX + number % columns * cell_width
        top = _MARGIN_PX + number // columns * cell_height
        strip = np.concatenate(list(decode_video(video)[list(_FRAMES_SHOWN)]), axis=1)
        sheet.paste(Image.fromarray(strip).resize((strip_px, _THUMBNAIL_PX)), (left, top))
        draw.text((left, top + _THUMBNAIL_PX + 2), _fitting(row["caption"], font, strip_px), "#1b2027", font)
        draw.text((left, top + _THUMBNAIL_PX + 21), _fitting(_place(row), small, strip_px), "#5c6673", small)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _fitting(text: str, font: Any, width_px: int) -> str:
    while text and font.getlength(text) > width_px:
        text = text[: -max(2, len(text) // 20)].rstrip(" .") + "…"
    return text


def _place(row: dict[str, Any]) -> str:
    return (
        f"{row['dataset']} · {row['camera']} · {row['source_episode']} · frames {row['start_frame']}-{row['end_frame']}"
    )


def _page(rows: Sequence[dict[str, Any]], videos: Sequence[bytes], tables: dict[str, pa.Table]) -> str:
    figures = "".join(_figure(row, video) for row, video in zip(rows, videos, strict=True))
    stand_ins = {row["text_encoder"] for row in rows if row["text_encoder_is_stand_in"]}
    note = "".join(f" Text embeddings come from a stand-in: {html.escape(name)}." for name in sorted(stand_ins))
    sections = "".join(f"<h2>{title}</h2>{_table(table)}" for title, table in tables.items() if table.num_rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Contact sheet</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>Contact sheet</h1><p>{len(rows)} clips of 16 frames, spread over datasets and cameras.{note}</p>"
        f'<div class="clips">{figures}</div>{sections}</html>\n'
    )


def _figure(row: dict[str, Any], video: bytes) -> str:
    source = base64.b64encode(video).decode()
    return (
        f'<figure><video src="data:video/mp4;base64,{source}" autoplay loop muted playsinline controls></video>'
        f"<figcaption>{html.escape(row['caption'])}<small>{html.escape(_place(row))}</small></figcaption></figure>"
    )


def _table(table: pa.Table) -> str:
    numeric = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in table.schema]
    classes = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(
        f"<th{kind}>{html.escape(name)}</th>" for name, kind in zip(table.column_names, classes, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_cell(v)}</td>" for v, kind in zip(row.values(), classes, strict=True)) + "</tr>"
        for row in table.to_pylist()
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    return "" if value is None else html.escape(f"{value:,}" if isinstance(value, int) else str(value))
