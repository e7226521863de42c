"""Asks the manifest of a preprocessing run. See `--help`."""

import io
import sys
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import tyro

from pipelines.query import NAMED_QUERIES, Manifest, save_selection
from schemas.errors import UsageError
from schemas.settings import load_settings, run_job
from schemas.storage import write_file

_NAMES = ", ".join(f"{name} ({query.description})" for name, query in NAMED_QUERIES.items())


@dataclass(frozen=True)
class QuerySettings:
    """Runs SQL over the views clips, episodes and shards of a dataset; reads only.

    Attributes:
        dataset: URL of the output of a preprocessing run.
        query: One SELECT, or the name of a query: counts, rejected, captions, duplicates, shards.
        like: Text that captions have to contain, for the query captions.
        format: How to print the result.
        out: URL of a file to write the result to instead of printing it.
        save: Name under which the ids in the result are kept as a selection for the training jobs.
        limit: Rows to print as a table; 0 for all.
        memory: What DuckDB may use before it spills to disk.
    """

    dataset: tyro.conf.Positional[str] = ""
    query: tyro.conf.Positional[str] = "counts"
    like: str = ""
    format: Literal["table", "csv", "json", "parquet"] = "table"
    out: str = ""
    save: str = ""
    limit: int = 50
    memory: str = "4GB"


def main() -> None:
    """Parses, asks, prints."""
    settings = load_settings(QuerySettings, "query")
    if not settings.dataset:
        raise UsageError("expected a dataset: python jobs/query.py DATASET [QUERY]")
    if settings.format == "parquet" and not settings.out and sys.stdout.isatty():
        raise UsageError("--format parquet: expected --out FILE or a pipe, found a terminal")
    manifest = Manifest(settings.dataset, settings.memory)
    if settings.query in NAMED_QUERIES:
        result, sql = manifest.named(settings.query, settings.like), NAMED_QUERIES[settings.query].sql
    elif settings.query.isidentifier():
        raise UsageError(f"unknown query {settings.query!r}; expected SQL or one of: {_NAMES}")
    else:
        result, sql = manifest.select(settings.query), settings.query
    if settings.save:
        url = save_selection(settings.dataset, settings.save, result, sql)
        print(f"selection of {result.num_rows} rows: {url}", file=sys.stderr)
    content = _content(result, settings)
    if settings.out:
        with write_file(settings.out) as handle:
            handle.write(content)
    else:
        sys.stdout.buffer.write(content)


def _content(result: pa.Table, settings: QuerySettings) -> bytes:
    buffer = io.BytesIO()
    if settings.format == "parquet":
        pyarrow.parquet.write_table(result, buffer)
    elif settings.format == "json":
        result.to_pandas().to_json(buffer, orient="records", lines=True, date_format="iso")
    elif settings.format == "csv":
        result.to_pandas().to_csv(buffer, index=False)
    else:
        buffer.write(_table(result, settings.limit or result.num_rows).encode())
    return buffer.getvalue()


def _table(result: pa.Table, limit: int) -> str:
    """Columns of equal width, numbers to the right."""
    rows = [[_cell(value) for value in row.values()] for row in result.slice(0, limit).to_pylist()]
    names = result.column_names
    widths = [max([len(name), *(len(row[column]) for row in rows)]) for column, name in enumerate(names)]
    right = [
        pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type)
        for f in result.schema
    ]

    def line(cells: list[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    lines = [line(names), line(["-" * width for width in widths]), *map(line, rows)]
    if result.num_rows > limit:
        lines.append(f"... {result.num_rows - limit} more rows (--limit 0 prints all)")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


if __name__ == "__main__":
    run_job(main)
