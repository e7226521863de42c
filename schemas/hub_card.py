"""Cards as the Hugging Face hub reads them: YAML between two lines of dashes, then Markdown; a folder's `README.md`.

A card follows from a run's settings and figures alone, without dates, so that a run that was resumed leaves the same
bytes. The licence is left to whoever publishes, since it depends on data and models that are not ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

CARD = "README.md"
"""Name of a card in its folder."""

NO_LICENCE = (
    "Nobody has named a licence yet: whoever publishes this folder adds `license:` above, as the licences of the data "
    "and of the models that it was made from allow."
)


def hub_card(front: Mapping[str, Any], title: str, *blocks: str) -> str:
    """A whole card.

    Args:
        front: The hub's fields, such as `tags`.
        title: The heading.
        blocks: Markdown, put one below another.

    >>> print(hub_card({"tags": ["robotics"]}, "A policy", "It acts."))
    ---
    tags:
    - robotics
    ---
    <BLANKLINE>
    # A policy
    <BLANKLINE>
    It acts.
    <BLANKLINE>
    """
    head = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    body = "\n\n".join((f"# {title}", *blocks))
    return f"---\n{head}---\n\n{body}\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are Markdown.

    >>> print(table(["clips", "hours"], [["3", "0.1"]]))
    | clips | hours |
    | --- | --- |
    | 3 | 0.1 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: object) -> str:
    """A value as code inside a line or a cell, whatever it holds.

    >>> code("a`b|c"), code("")
    ("`a'b/c`", 'unknown')
    """
    text = " ".join(str(value).replace("`", "'").replace("|", "/").split())
    return f"`{text}`" if text else "unknown"


def figure(value: float) -> str:
    """A figure with four digits, so that the last bits of a sum do not change a card.

    >>> figure(0.123456), figure(12345.6)
    ('0.1235', '1.235e+04')
    """
    return f"{value:.4g}"
