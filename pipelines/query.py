"""SQL on the manifest: DuckDB over its Parquet parts, on disk or in an object store, reading only.

Views: `clips` and `episodes` (a row for each sample, whatever became of it; columns in `schemas/manifest.py`) and
`shards`. A query is one SELECT. It can open no other file, write nothing and change no setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UsageError
from schemas.layout import manifest_folder, selection_url
from schemas.manifest import SCHEMAS
from schemas.shard import PRODUCTS
from schemas.storage import exists, filesystem, is_local, join, list_files, read_bytes, write_file

_SHARDS = """
    select '{product}' as product, dataset, shard, count(*) as num_samples, sum(num_bytes) as num_bytes,
           any_value(text_encoder) as text_encoder, any_value(latent_codec) as latent_codec
    from {product} where status = 'written' group by dataset, shard
"""


@dataclass(frozen=True)
class NamedQuery:
    """A query that everyone needs; `?` in it stands for the text of `--like`."""

    description: str
    sql: str


NAMED_QUERIES = {
    "counts": NamedQuery(
        "rows by dataset and status, with hours where the frame rate is known",
        """
        with samples as (
            select 'clips' as product, dataset, status, source_fps, end_frame - start_frame as num_frames from clips
            union all
            select 'episodes', dataset, status, source_fps, end_frame - start_frame from episodes
        )
        select product, dataset, status, count(*) as num,
               round(sum(case when source_fps > 0 then num_frames / source_fps end) / 3600, 3) as hours
        from samples group by all order by all
        """,
    ),
    "rejected": NamedQuery(
        "what was turned away, by reason, with one example",
        """
        with samples as (
            select 'clips' as product, dataset, status, reason, detail from clips
            union all
            select 'episodes', dataset, status, reason, detail from episodes
        )
        select product, dataset, status, reason, count(*) as num, min(detail) as example
        from samples where status <> 'written' group by all order by num desc, product, dataset, status, reason
        """,
    ),
    "captions": NamedQuery(
        "distinct captions, the most frequent first; --like narrows",
        """
        select caption, count(*) as num_clips, list(distinct dataset order by dataset) as datasets
        from clips where status = 'written' and caption ilike ? group by caption order by num_clips desc, caption
        """,
    ),
    "duplicates": NamedQuery(
        "clips with the same bytes",
        """
        select sha256, count(*) as num, list(clip_id order by clip_id) as clip_ids, min(caption) as caption
        from clips where status = 'written' group by sha256 having count(*) > 1 order by num desc, sha256
        """,
    ),
    "shards": NamedQuery("shards with their sizes", "select * from shards order by product, shard"),
}


class Manifest:
    """An open manifest.

    Args:
        url: The output of a preprocessing run.
        memory_limit: What DuckDB may use before it spills, such as `4GB`.
        num_threads: Threads of DuckDB; 0 for all cores.

    Raises:
        UsageError: If there is no manifest.
    """

    def __init__(self, url: str, memory_limit: str = "4GB", num_threads: int = 0) -> None:
        self._url = url
        folders = {product: manifest_folder(url, product) for product in PRODUCTS}
        found = {product: any(_parts(folder)) for product, folder in folders.items()}
        if not any(found.values()):
            raise UsageError(f"{url}: expected a manifest (clips/manifest or episodes/manifest), found none")
        self._connection = duckdb.connect()
        self._set("memory_limit", memory_limit)
        if num_threads:
            self._set("threads", str(num_threads))
        self._set("parquet_metadata_cache", "true")
        self._set("python_enable_replacements", "false")  # or a query could read variables of this program
        if not is_local(url):
            self._connection.register_filesystem(filesystem(url)[0])
        allowed = ", ".join(_literal(_absolute(folder)) for folder in folders.values())
        self._connection.execute(f"set allowed_directories = [{allowed}]")
        self._connection.execute("set enable_external_access = false")
        for product in PRODUCTS:
            if found[product]:
                pattern = _literal(join(_absolute(folders[product]), "*", "*.parquet"))
                self._connection.execute(f"create view {product} as select * from read_parquet({pattern})")
            else:
                self._connection.register(product, SCHEMAS[product].empty_table())
        union = " union all ".join(_SHARDS.format(product=product) for product in PRODUCTS)
        self._connection.execute(f"create view shards as {union}")
        self._connection.execute("set lock_configuration = true")

    def select(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Runs one SELECT and returns its result.

        Raises:
            UsageError: If it is anything else, or DuckDB cannot run it.
        """
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.Error as error:
            raise UsageError(f"query: {_first_lines(error)}") from error
        kinds = [statement.type.name for statement in statements]
        if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
            raise UsageError(
                f"query: expected one SELECT, found {' and '.join(kinds) or 'nothing'}; the manifest is read-only"
            )
        try:
            result: pa.Table = self._connection.sql(sql, params=list(parameters)).to_arrow_table()
            return result
        except duckdb.Error as error:
            raise UsageError(f"query: {_first_lines(error)}") from error

    def named(self, name: str, like: str = "") -> pa.Table:
        """Runs one of `NAMED_QUERIES`."""
        query = NAMED_QUERIES[name]
        return self.select(query.sql, [f"%{like}%"] if "?" in query.sql else [])

    def _set(self, name: str, value: str) -> None:
        try:
            self._connection.execute(f"set {name} = {_literal(value)}")
        except duckdb.Error as error:
            raise UsageError(f"{name}: {_first_lines(error)}") from error


def save_selection(url: str, name: str, result: pa.Table, sql: str) -> str:
    """Writes the ids in a result as a selection that the training jobs take; returns its URL.

    Args:
        url: The dataset.
        name: The selection's name.
        result: Has a column `clip_id` or `episode_id`.
        sql: Where it comes from; kept with it.

    Raises:
        UsageError: If there is no such column, or the name is no plain file name.
    """
    column = next((c for c in ("clip_id", "episode_id") if c in result.column_names), None)
    if column is None:
        raise UsageError(f"--save: expected a column clip_id or episode_id, found {', '.join(result.column_names)}")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--save: expected a name of letters, digits, - and _, found {name!r}")
    ids = pa.table({column: pa.array(sorted(set(result[column].to_pylist())), pa.string())})
    target = selection_url(url, name)
    with write_file(target) as handle:
        pq.write_table(ids.replace_schema_metadata({"sql": sql}), handle, compression="zstd")
    return target


def load_selection(url: str, name: str) -> pa.Table:
    """Reads a selection: one sorted column `clip_id` or `episode_id`.

    Raises:
        UsageError: If there is none of that name.
    """
    source = selection_url(url, name)
    if not exists(source):
        raise UsageError(f"selection {name!r}: expected {source}, found none; jobs/query.py --save {name} writes one")
    return pq.read_table(pa.BufferReader(read_bytes(source)))


def _parts(folder: str) -> list[str]:
    return list_files(folder, ".parquet")


def _absolute(url: str) -> str:
    return str(Path(filesystem(url)[1]).resolve()) if is_local(url) else url


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_lines(error: duckdb.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "^" not in line]
    return " ".join(line for line in lines if not line.startswith("LINE "))
