"""The frame of every page: head, links, when it was read; and addresses of pages. Its policy allows no script."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from vpp.browse.snapshot import Snapshot
from vpp.report.html import Html, inside, tag
from vpp.report.style import STYLE

_MOST_CHARACTERS = 300

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; media-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""The browser runs no script and asks no other server, whatever stands in captions and names."""

BROWSE_STYLE = f"""{STYLE}
header.top {{ display: flex; flex-wrap: wrap; align-items: baseline; gap: 6px 20px; margin-bottom: 22px; }}
header.top nav {{ margin: 0; }} header.top b {{ font-size: 18px; overflow-wrap: anywhere; }}
header.top form {{ margin-left: auto; }}
form.filters {{ display: flex; flex-wrap: wrap; gap: 10px 14px; align-items: end; }}
form.filters label {{ display: flex; flex-direction: column; font-size: 13px; color: var(--faint); min-width: 0; }}
input, select, button {{ font: inherit; color: var(--ink); background: var(--page); border: 1px solid var(--edge);
  border-radius: 8px; padding: 5px 10px; max-width: 100%; }}
button, a.button {{ cursor: pointer; color: var(--link); background: var(--page); border: 1px solid var(--edge);
  border-radius: 8px; padding: 5px 14px; text-decoration: none; }}
.films.small video {{ aspect-ratio: 1; }}
.turned {{ border: 1px dashed var(--edge); border-radius: 10px; padding: 12px; aspect-ratio: 1; overflow: auto;
  font-size: 14px; overflow-wrap: anywhere; }}
.sides {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 18px 28px; }}
.beside {{ display: grid; grid-template-columns: minmax(0, 260px) minmax(0, 1fr); gap: 20px; }}
@media (max-width: 560px) {{ .beside {{ grid-template-columns: 1fr; }} }}
.strip {{ display: block; width: 100%; height: auto; border-radius: 8px; }}
.pages {{ display: flex; gap: 14px; margin-top: 18px; }}
"""


def page(snapshot: Snapshot, title: str, *content: object, data: str | None = None) -> str:
    """A whole page.

    Args:
        snapshot: What it shows.
        title: Its name.
        content: What stands in it.
        data: Path of the dataset that it is about; None for the first one.
    """
    links = [tag("a", "Overview", href="/")]
    if snapshot.datasets:
        links += [tag("a", name.title(), href=address(f"/{name}", data=data)) for name in ("clips", "episodes")]
    again = tag(
        "form",
        tag("span", f"read at {snapshot.began:%H:%M:%S} UTC ", class_="faint"),
        tag("button", "Read again"),
        method="post",
        action="/again",
    )
    top = tag("header", tag("b", snapshot.name), tag("nav", *links), again, class_="top")
    return document(f"{short(title)} · {snapshot.name}", top, tag("h1", short(title)), *content)


def document(title: str, *content: object) -> str:
    """A page without links, such as one that tells what went wrong."""
    head = inside(
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="stylesheet", href="/style.css"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
    )
    body = tag("body", tag("main", *content))
    return f"<!doctype html>\n{tag('html', tag('head', head), body, lang='en')}\n"


def short(text: str) -> str:
    """A text as it stands in a list or a heading: a caption can have any length.

    >>> len(short("x" * 1000))
    301
    """
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def address(path: str, **values: str | Iterable[str] | None) -> str:
    """The address of a page; None and empty values are left out, but for `data`, whose empty path is the folder itself.

    >>> address("/clips", data="a b", status="", after=None), address("/runs", run=["x", "y"])
    ('/clips?data=a+b', '/runs?run=x&run=y')
    """
    shown = {name: value for name, value in values.items() if value or (name == "data" and value is not None)}
    return f"{path}?{urlencode(shown, doseq=True)}" if shown else path


def section(title: str, *content: object) -> Html:
    """A part of a page."""
    return tag("section", tag("h2", title), *content)
