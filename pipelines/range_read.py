"""Reads one sample out of a tar by the byte offsets in its manifest row: one request, no scan of the tar."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from schemas.errors import DataError
from schemas.shard import Product
from schemas.storage import join, join_inside, read_bytes

_LARGEST_OFFSET, _MOST_BYTES = 1 << 48, 1 << 31  # of a shard, of a sample: a manifest can claim any number


def locate_members(
    output: str, product: Product, row: Mapping[str, Any], names: Collection[str] | None = None
) -> tuple[str, int, int]:
    """Where the members of a written clip or episode lie, from the first byte to the last needed.

    Args:
        output: The dataset: the output of `jobs/preprocess.py`.
        product: `clips` or `episodes`.
        row: Its manifest row; needs `shard` and `members`.
        names: The members, such as `mp4`; all of them by default.

    Returns:
        URL of the shard, and the half-open range of bytes in it; `(0, 0)` for no members.

    Raises:
        DataError: `not_written`, `missing_member`, `truncated_shard`, or `path_outside_root`.
    """
    identity = row.get("clip_id") or row.get("episode_id") or "a sample"
    if not row["shard"] or not row["members"]:
        raise DataError("not_written", f"expected a written sample, found {identity} {row.get('status') or ''}")
    members = _chosen(row, names)
    missing = sorted(set(names or ()) - {member["name"] for member in members})
    if missing:
        there = ", ".join(member["name"] for member in row["members"])
        raise DataError("missing_member", f"expected {', '.join(missing)} in {identity}, found {there}")
    url = join_inside(join(output, product, "shards"), row["shard"])
    if not members:
        return url, 0, 0
    if any(member["offset"] is None or member["num_bytes"] is None for member in members):
        raise DataError("truncated_shard", f"expected an offset and a size of each member of {identity}, found none")
    start = min(member["offset"] for member in members)
    end = max(member["offset"] + member["num_bytes"] for member in members)
    if (
        start < 0
        or end > _LARGEST_OFFSET
        or end - start > _MOST_BYTES
        or any(member["num_bytes"] < 0 for member in members)
    ):
        found = f"found bytes {start} to {end} in {identity}"
        raise DataError("truncated_shard", f"expected offsets from 0 on and at most {_MOST_BYTES} bytes, {found}")
    return url, start, end


def read_members(
    output: str, product: Product, row: Mapping[str, Any], names: Collection[str] | None = None
) -> dict[str, bytes]:
    """Reads the members of a written clip or episode with one range request, from the first byte to the last needed.

    Args:
        output: As for `locate_members`.
        product: `clips` or `episodes`.
        row: Its manifest row; needs `shard` and `members`.
        names: The members to read, such as `mp4`; all of them by default.

    Returns:
        Content by extension (`mp4`, `txt`, `image_0.mp4`, ...), in the order of the tar.

    Raises:
        DataError: As `locate_members`, or `missing_file`.
    """
    url, start, end = locate_members(output, product, row, names)
    if start == end:
        return {member["name"]: b"" for member in _chosen(row, names)}
    try:
        content = memoryview(read_bytes(url, start, end))
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected a shard, found no file at {url}") from error
    if len(content) != end - start:
        raise DataError("truncated_shard", f"expected bytes {start} to {end} in {url}, found {len(content)} bytes")
    return {
        member["name"]: bytes(content[member["offset"] - start : member["offset"] - start + member["num_bytes"]])
        for member in _chosen(row, names)
    }


def _chosen(row: Mapping[str, Any], names: Collection[str] | None) -> list[dict[str, Any]]:
    return [member for member in row["members"] if names is None or member["name"] in names]
