"""A table lines up and is harmless to a terminal; the other formats read back."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.query import Rows
from pipelines.query_output import write_rows


def rows(**columns: pa.Array) -> Rows:
    table = pa.table(columns)
    return Rows(table.schema, iter(table.to_batches(max_chunksize=2)))


def written(form: str, limit: int = 50, **columns: pa.Array) -> bytes:
    buffer = io.BytesIO()
    write_rows(rows(**columns), form, buffer, limit)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_numbers_stand_to_the_right_and_wide_letters_count_twice() -> None:
    text = written(
        "table", name=pa.array(["日本", "ab", None]), n=pa.array([1234567, 5, None]), x=pa.array([0.5, 1e-7, 12.0])
    )
    assert text.decode().splitlines() == [
        "name          n       x",
        "----  ---------  ------",
        "日本  1,234,567   0.500",
        "ab            5   1e-07",
        "null       null  12.000",
    ]


def test_a_caption_cannot_steer_the_terminal_nor_break_the_line() -> None:
    text = written("table", caption=pa.array(["\x1b[2J\nnew\tline", "a" * 500])).decode()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[2] == r"\x1b[2J\nnew\tline"
    assert len(lines) == 4
    assert len(lines[3]) == 60
    assert lines[3].endswith("…")


@pytest.mark.parametrize(("limit", "shown", "more"), [(3, 3, True), (5, 5, False), (0, 5, False)])
def test_a_table_says_when_there_is_more(limit: int, shown: int, more: bool) -> None:
    lines = written("table", limit, n=pa.array(range(5))).decode().splitlines()
    assert len(lines) == 2 + shown + more
    assert lines[-1].startswith("...") == more


def test_json_lines_hold_what_json_has_no_word_for() -> None:
    values = {
        "nan": pa.array([float("nan"), 1.5]),
        "huge": pa.array([Decimal(10**20), None], pa.decimal128(38, 0)),
        "list": pa.array([[{"a": float("inf")}], []]),
        "day": pa.array([0, None], pa.date32()),
    }
    first, second = (json.loads(line) for line in written("json", **values).splitlines())
    assert first == {"nan": None, "huge": 10**20, "list": [{"a": None}], "day": "1970-01-01"}
    assert second == {"nan": 1.5, "huge": None, "list": [], "day": None}


def test_csv_and_parquet_read_back() -> None:
    columns = {
        "text": pa.array(['a,"b"\nc', "ü", "x"]),
        "n": pa.array([1, 2, None]),
        "list": pa.array([[1, 2], [], None]),
    }
    read = list(csv.reader(io.StringIO(written("csv", **columns).decode(), newline="")))
    assert read == [["text", "n", "list"], ['a,"b"\nc', "1", "[1, 2]"], ["ü", "2", "[]"], ["x", "", ""]]
    assert pq.read_table(io.BytesIO(written("parquet", **columns))).equals(pa.table(columns))


@pytest.mark.parametrize("form", ["table", "csv", "json", "parquet"])
def test_no_rows_are_no_fault(form: str) -> None:
    assert isinstance(written(form, n=pa.array([], pa.int64())), bytes)
