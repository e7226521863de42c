"""Writes a contact sheet as one HTML page that needs no other file, no network and no script.

Captions and file names come from data: all of it is escaped, and the page's own policy forbids scripts and requests.
"""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from pipelines.contact_sheet_card import Card

_FRAME_PX = 192

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"

_STYLE = """
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --edge: #e1e4e8; --ink: #1b1f24; --faint: #5b6573;
  --chip: #eaf1fb; --chip-ink: #1f4f8f; --fault: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #101317; --card: #191d23; --edge: #2a3038; --ink: #e6e9ed;
  --faint: #97a1ae; --chip: #1d2f47; --chip-ink: #9cc4f7; --fault: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 36px 0 12px; }
.where { color: var(--faint); overflow-wrap: anywhere; margin: 4px 0 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)); gap: 16px;
  margin-top: 24px; }
article { display: grid; grid-template-columns: 200px minmax(0, 1fr); gap: 14px; background: var(--card);
  border: 1px solid var(--edge); border-radius: 12px; padding: 14px; }
video, .frames img { display: block; width: 100%; aspect-ratio: 1; border-radius: 8px; background: #000; }
.text { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
.caption { font-size: 17px; font-weight: 600; margin: 0; overflow-wrap: anywhere; max-height: 5.8em; overflow: auto; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 8px; margin: 0; color: var(--faint); font-size: 13px; }
.chip { background: var(--chip); color: var(--chip-ink); border-radius: 999px; padding: 0 9px; }
.frames { display: grid; grid-template-columns: repeat(4, 1fr); gap: 6px; margin: auto 0 0; }
.frames figure { margin: 0; } .frames img { border-radius: 6px; }
figcaption, code { color: var(--faint); font-size: 12px; } figcaption { text-align: center; }
.fault { color: var(--fault); overflow-wrap: anywhere; margin: 0; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; } th, td { padding: 8px 14px; text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; font-size: 13px; } tr + tr td { border-top: 1px solid var(--edge); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
@media (max-width: 560px) { article { grid-template-columns: 1fr; } }
"""


def write_page(
    dataset_url: str, cards: list[Card], counts: list[dict[str, Any]], rejected: list[dict[str, Any]]
) -> bytes:
    """Writes the page in UTF-8.

    Args:
        dataset_url: What the sheet shows, for the heading.
        cards: The clips, in reading order.
        counts: Rows of the table of counts.
        rejected: Rows of the table of what was turned away.
    """
    clips = "".join(map(_card, cards)) or "<p>No written clips.</p>"
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Contact sheet</title><style>{_STYLE}</style></head>
<body><main><h1>Contact sheet</h1>
<p class="where">{len(cards)} clips of {escape(dataset_url)}</p>
<section class="cards">{clips}</section>
<h2>Counts</h2>{_table(counts, "Nothing was planned.")}
<h2>What was turned away, and why</h2>{_table(rejected, "Nothing was turned away.")}
</main></body></html>
"""
    return page.encode()


def _card(card: Card) -> str:
    row = {name: escape(str(value)) for name, value in card.row.items() if name != "members"}
    pictures = {number: _jpeg(frame) for number, frame in card.frames.items()}
    if card.fault:
        film = f'<p class="fault">{escape(card.fault)}</p>'
    else:
        source = f"data:video/mp4;base64,{b64encode(card.video).decode()}"
        poster = next(iter(pictures.values()))
        film = f'<video autoplay muted loop playsinline controls poster="{poster}" src="{source}"></video>'
    strip = "".join(
        f'<figure><img src="{picture}" alt="frame {number}"><figcaption>{number}</figcaption></figure>'
        for number, picture in pictures.items()
    )
    return f"""<article><div>{film}</div><div class="text">
<p class="caption">{row["caption"]}</p>
<p class="facts"><span class="chip">{row["dataset"]}</span><span class="chip">camera {row["camera"]}</span>
<span>frames {row["start_frame"]} to {row["end_frame"]} of {row["source_episode"]}</span>
<code>{row["clip_id"]}</code></p>
<div class="frames">{strip}</div></div></article>
"""


def _jpeg(frame: np.ndarray) -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(frame).resize((_FRAME_PX, _FRAME_PX), Image.Resampling.LANCZOS)
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"


def _table(rows: list[dict[str, Any]], otherwise: str) -> str:
    if not rows:
        return f"<p>{otherwise}</p>"
    numeric = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}

    def line(cells: dict[str, str], tag: str) -> str:
        marks = {name: ' class="number"' if name in numeric else "" for name in cells}
        return "".join(f"<{tag}{marks[name]}>{escape(text)}</{tag}>" for name, text in cells.items())

    head = line({name: name.replace("_", " ") for name in rows[0]}, "th")
    texts = [{name: _cell(value) for name, value in row.items()} for row in rows]
    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in texts)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    """A number with its thousands apart; what is not known, such as hours without a frame rate, says so."""
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
