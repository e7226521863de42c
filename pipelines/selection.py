"""A saved selection: the ids of clips or episodes that a query chose, which training takes instead of all of them.

`<output>/selections/<name>.parquet` has one column, `clip_id` or `episode_id`, sorted and without repeats; the schema's
metadata holds `sql`, `product` and `rows`. The same query on the same manifest writes the same bytes.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import UsageError
from schemas.layout import selection_url
from schemas.parquet_memory import read_parquet
from schemas.shard import Product
from schemas.storage import exists, join, list_names, read_bytes, write_file

ID_COLUMNS: dict[str, Product] = {"clip_id": "clips", "episode_id": "episodes"}
"""The product that a column's ids are of."""


def check_selection_name(name: str) -> None:
    """Checks that a name can be a file's.

    Raises:
        UsageError: If it has other characters than letters, digits, `-` and `_`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"--save: expected a name of letters, digits, - and _, found {name!r}")


def id_column(names: list[str]) -> str:
    """The one column of a result that holds ids.

    Raises:
        UsageError: If there is none, or both.
    """
    found = [name for name in names if name in ID_COLUMNS]
    if len(found) != 1:
        raise UsageError(f"--save: expected a column clip_id or episode_id, one of the two, found {', '.join(names)}")
    return found[0]


def save_selection(url: str, name: str, result: pa.Table, sql: str) -> str:
    """Writes the ids in a result as a selection, in place of one of the same name; returns its URL.

    Args:
        url: The dataset.
        name: The selection's name.
        result: Has a column `clip_id` or `episode_id`; repeats and nulls in it are dropped.
        sql: Where it comes from; kept with it.

    Raises:
        UsageError: If there is no such column, the name cannot be a file's, or there are no ids.
    """
    check_selection_name(name)
    column = id_column(result.column_names)
    ids = pc.unique(result[column].cast(pa.string()).drop_null())
    ids = ids.take(pc.sort_indices(ids))
    if len(ids) == 0:
        raise UsageError(f"--save {name}: expected a query that yields at least one id, found none")
    metadata = {"sql": sql, "product": ID_COLUMNS[column], "rows": str(len(ids))}
    target = selection_url(url, name)
    with write_file(target) as handle:
        pq.write_table(pa.table({column: ids}).replace_schema_metadata(metadata), handle, compression="zstd")
    return target


def load_selection(url: str, name: str) -> pa.Table:
    """Reads a selection: one sorted column `clip_id` or `episode_id`.

    Raises:
        UsageError: If there is none of that name, or the file is something else.
    """
    check_selection_name(name)
    source = selection_url(url, name)
    if not exists(source):
        there = ", ".join(entry.removesuffix(".parquet") for entry in list_names(join(url, "selections"))) or "none"
        raise UsageError(
            f"selection {name!r}: expected {source}, found none; jobs/query.py --save {name} writes one; there: {there}"
        )
    table = read_parquet(read_bytes(source), f"selection {name!r} at {source}")
    if len(table.column_names) != 1 or table.column_names[0] not in ID_COLUMNS:
        found = ", ".join(table.column_names)
        raise UsageError(f"selection {name!r}: expected one column clip_id or episode_id in {source}, found {found}")
    return table
