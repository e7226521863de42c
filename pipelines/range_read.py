"""One sample by one range request: what the manifest's offsets are for."""

from __future__ import annotations

from typing import Any

from schemas.shard import Product
from schemas.storage import join, read_bytes


def read_members(output: str, product: Product, row: dict[str, Any]) -> dict[str, bytes]:
    """Reads all members of a written sample.

    Args:
        output: The output of a preprocessing run.
        product: `clips` or `episodes`.
        row: Its manifest row; needs `shard` and `members`.

    Returns:
        Contents by extension, such as `mp4`.
    """
    members = row["members"]
    first = min(member["offset"] for member in members)
    last = max(member["offset"] + member["num_bytes"] for member in members)
    content = read_bytes(join(output, product, "shards", row["shard"]), first, last)
    return {m["name"]: content[m["offset"] - first : m["offset"] - first + m["num_bytes"]] for m in members}
