"""Writes the rows of a query: a table to read, CSV, JSON lines or Parquet. All but the table stream."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.query import Rows

Format = Literal["table", "csv", "json", "parquet"]

_MAX_WIDTH = 60  # characters of a table's column


def write_rows(rows: Rows, form: Format, handle: IO[bytes], limit: int = 50) -> int:
    """Writes rows in UTF-8, or as Parquet.

    Args:
        rows: What a query yielded.
        form: `table`: fixed-width columns for people; `csv`: lists and structs as JSON; `json`: an object a line;
            `parquet`.
        handle: Where to write; it need not seek.
        limit: Rows to write as a table, which says so when there are more; 0 for all.

    Returns:
        How many rows were written.
    """
    if form == "table":
        return _write_table(rows, handle, limit)
    return _STREAMED[form](rows, handle)


def _write_table(rows: Rows, handle: IO[bytes], limit: int) -> int:
    every = (row for batch in rows.batches for row in _values(batch))
    found = list(islice(every, limit + 1 if limit else None))
    shown = found[: limit or None]
    numeric = [_is_number(field.type) for field in rows.schema]
    lines = [[_printable(name) for name in rows.schema.names], *([_cell(value) for value in row] for row in shown)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(numeric))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        cells = (
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        handle.write(("  ".join(cells).rstrip() + "\n").encode())
    if len(found) > len(shown):
        handle.write(f"... more than {limit:,} rows: --limit 0 or another --format shows all\n".encode())
    return len(shown)


def _write_csv(rows: Rows, handle: IO[bytes]) -> int:
    text = io.TextIOWrapper(handle, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.schema.names)
    num_rows = 0
    for batch in rows.batches:
        nested = [pa.types.is_nested(field.type) for field in batch.schema]
        for row in _values(batch):
            writer.writerow(
                _json(value) if is_nested and value is not None else value
                for value, is_nested in zip(row, nested, strict=True)
            )
        num_rows += batch.num_rows
    text.detach()
    return num_rows


def _write_json(rows: Rows, handle: IO[bytes]) -> int:
    num_rows = 0
    for batch in rows.batches:
        for row in _values(batch):
            handle.write((_json(dict(zip(rows.schema.names, row, strict=True))) + "\n").encode())
        num_rows += batch.num_rows
    return num_rows


def _write_parquet(rows: Rows, handle: IO[bytes]) -> int:
    num_rows = 0
    with pq.ParquetWriter(handle, rows.schema, compression="zstd") as writer:
        for batch in rows.batches:
            writer.write_batch(batch)
            num_rows += batch.num_rows
    return num_rows


def _values(batch: pa.RecordBatch) -> zip[tuple[Any, ...]]:
    """Rows of plain values; by position, since names may repeat."""
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    """What JSON can hold: no NaN, no infinity, no Decimal."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, Decimal) and value == value.to_integral_value()):
        return f"{int(value):,}"
    if isinstance(value, float | Decimal):
        number = float(value)
        return f"{number:,.3f}" if number == 0 or abs(number) >= 0.001 else f"{number:.3g}"
    text = _json(value) if isinstance(value, list | dict) else str(value)
    text = _printable(text)
    return text if _width(text) <= _MAX_WIDTH else _cut(text, _MAX_WIDTH - 1) + "…"


def _printable(text: str) -> str:
    """Escapes what would steer a terminal: captions come from data."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _width(text: str) -> int:
    """Columns that a terminal needs."""
    return len(text) if text.isascii() else sum(map(_letter_width, text))


def _letter_width(letter: str) -> int:
    return 0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """The longest beginning that is at most so wide."""
    total = 0
    for position, letter in enumerate(text):
        total += _letter_width(letter)
        if total > width:
            return text[:position]
    return text


_STREAMED: dict[Format, Callable[[Rows, IO[bytes]], int]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}
