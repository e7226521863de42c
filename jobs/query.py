"""Asks a dataset's manifest, in SQL or by the name of a question, and saves selections of clips. See `--help`."""

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from pipelines.named_queries import NAMED_QUERIES
from pipelines.query import Manifest
from pipelines.query_output import Format, write_rows
from pipelines.selection import ID_COLUMNS, check_selection_name, save_selection
from runtime.job import run_job
from runtime.settings import load_settings
from schemas.errors import UsageError
from schemas.storage import write_file


@dataclass(frozen=True)
class QuerySettings:
    """Asks a dataset's manifest, read-only, for example:

    python jobs/query.py DATASET "select dataset, status, count(*) from clips group by all"

    python jobs/query.py DATASET captions --like drawer

    python jobs/query.py DATASET "select clip_id from clips where caption like '%drawer%'" --save drawers

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Attributes:
        dataset: URL of a dataset: the output of jobs/preprocess.py.
        query: DuckDB's SQL over the views clips, episodes and shards, or one of: counts, hours, rejected, captions,
            duplicates, datasets, shards.
        like: Text that `captions` looks for.
        format: How to write the rows; auto: by the ending of --out, else a table.
        out: File or URL to write to instead of the terminal.
        save: Name of a selection to write: the query has to yield a column clip_id or episode_id. Training takes the
            selection instead of everything.
        limit: Rows of a table; 0 for all.
        memory: What DuckDB may use before it spills to disk.
        num_threads: Threads of the query; 0 for one a core, or 16 where the manifest is remote.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = ""
    query: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")] = "counts"
    like: str = ""
    format: Literal["auto", "table", "csv", "json", "parquet"] = "auto"
    out: str = ""
    save: str = ""
    limit: int = 50
    memory: str = "4GB"
    num_threads: int = 0

    def __post_init__(self) -> None:
        for name, value in (("--limit", self.limit), ("--num-threads", self.num_threads)):
            if value < 0:
                raise ValueError(f"{name}: expected at least 0, found {value}")


def main() -> None:
    """Parses, asks, writes."""
    settings = load_settings(QuerySettings, "query")
    if not settings.dataset:
        raise UsageError("expected the URL of a dataset as the first argument, found nothing")
    sql, parameters = _sql(settings)
    with Manifest.open(settings.dataset, settings.memory, settings.num_threads) as manifest:
        if settings.save:
            _save(settings, manifest, sql)
        else:
            _write(settings, manifest, sql, parameters)


def _sql(settings: QuerySettings) -> tuple[str, dict[str, str]]:
    named = NAMED_QUERIES.get(settings.query.strip())
    if named is None and len(settings.query.split()) < 2:
        known = ", ".join(NAMED_QUERIES)
        raise UsageError(f"unknown query {settings.query!r}; expected SQL or one of: {known}")
    if settings.like and not (named and named.takes_like):
        raise UsageError("--like: only the query captions takes it")
    return (named.sql, named.bind(settings.like)) if named else (settings.query, {})


def _save(settings: QuerySettings, manifest: Manifest, sql: str) -> None:
    if settings.out or settings.format != "auto":
        raise UsageError("--save: expected no --out and no --format with it, a selection has its own place and format")
    check_selection_name(settings.save)
    ids, num_others = manifest.select_ids(sql)
    url = save_selection(settings.dataset, settings.save, ids, sql)
    left_out = f", {num_others:,} others left out since they are not written" if num_others else ""
    print(f"selection {settings.save}: {ids.num_rows:,} {ID_COLUMNS[ids.column_names[0]]}{left_out}: {url}")


def _write(settings: QuerySettings, manifest: Manifest, sql: str, parameters: dict[str, str]) -> None:
    ending = settings.out.rsplit(".", 1)[-1]
    form: Format = "table"
    if settings.format != "auto":
        form = settings.format
    elif ending in ("csv", "json", "parquet"):
        form = ending  # type: ignore[assignment]  # one of the three
    if settings.out:
        rows = manifest.stream(sql, parameters)
        with write_file(settings.out) as handle:
            num_rows = write_rows(rows, form, handle, settings.limit)
        print(f"{num_rows:,} rows: {settings.out}")
        return
    if form == "parquet" and sys.stdout.isatty():
        raise UsageError("--format parquet: expected --out or a pipe, found a terminal")
    try:
        write_rows(manifest.stream(sql, parameters), form, sys.stdout.buffer, settings.limit)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run_job(main)
