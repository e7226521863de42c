"""SQL over a dataset's manifest, read-only: DuckDB in memory, with the views `clips`, `episodes` and `shards`.

Only one SELECT at a time is run. DuckDB sees no files but the manifest's parts (`pipelines.manifest_files`), loads no
extensions and keeps its settings. Results stream; what a query needs beyond the memory limit goes to a temporary
folder.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.manifest_files import PROTOCOL, ManifestFiles
from schemas.errors import UsageError
from schemas.layout import manifest_folder
from schemas.manifest import SCHEMAS
from schemas.shard import PRODUCTS, Product
from schemas.storage import is_local

_BATCH_ROWS = 16_384
_REMOTE_THREADS = 16  # on a remote store a query mostly waits for answers

_SHARDS_OF_PRODUCT = """
    select dataset, '{product}' as product, shard, count(*) as num_samples,
           sum(end_frame - start_frame)::bigint as num_source_frames, count(distinct caption) as num_captions,
           sum(num_bytes)::bigint as num_bytes, min(num_bytes) as min_sample_bytes, max(num_bytes) as max_sample_bytes,
           bool_or(text_encoder_is_stand_in or latent_codec_is_stand_in) as has_stand_ins
    from {product} where status = 'written' group by dataset, shard"""


@dataclass(frozen=True)
class Rows:
    """The result of a query, one batch after another.

    Attributes:
        schema: Names and types of the columns.
        batches: To be read once, before the manifest is closed.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def to_pylist(self) -> list[dict[str, Any]]:
        """All rows as dicts, for small results."""
        return [row for batch in self.batches for row in batch.to_pylist()]


class Manifest:
    """A dataset's manifest as it is when opened; a context manager."""

    def __init__(self, files: ManifestFiles, connection: duckdb.DuckDBPyConnection, spill: Any) -> None:
        self._files, self._connection, self._spill = files, connection, spill

    @classmethod
    def open(cls, url: str, memory_limit_gb: float = 4.0, num_threads: int = 0) -> Manifest:
        """Opens the manifest of a dataset; a product that was not made is an empty view.

        Args:
            url: The dataset: the output of `jobs/preprocess.py`.
            memory_limit_gb: Memory that DuckDB may use.
            num_threads: 0 for one a core, or 16 where the manifest is remote.

        Raises:
            UsageError: If there is no manifest.
        """
        files = ManifestFiles(url)
        if not any(files.num_parts(product) for product in PRODUCTS):
            expected = " or ".join(manifest_folder(url, product) for product in PRODUCTS)
            raise UsageError(f"expected the output of jobs/preprocess.py, found no manifest parts below {expected}")
        spill = tempfile.TemporaryDirectory(prefix="vpp-query-")
        settings = {
            "temp_directory": spill.name,
            "memory_limit": f"{memory_limit_gb}GB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",  # or a query could read this program's variables
            "parquet_metadata_cache": "true",
            "cache_local_files": "true",  # DuckDB takes the registered filesystem for a local one
            "validate_external_file_cache": "NO_VALIDATION",  # a part never changes
        }
        if num_threads or not is_local(url):
            settings["threads"] = str(num_threads or _REMOTE_THREADS)
        manifest = cls(files, duckdb.connect(":memory:"), spill)
        try:
            manifest._make_views(settings)
        except BaseException:
            manifest.close()
            raise
        return manifest

    def _make_views(self, settings: Mapping[str, str]) -> None:
        self._connection.register_filesystem(self._files)
        with self._faults():
            for name, value in settings.items():
                self._connection.execute(f"set {name} = '{value}'")
            for product in PRODUCTS:
                self._make_view(product)
            shards = " union all ".join(_SHARDS_OF_PRODUCT.format(product=product) for product in PRODUCTS)
            self._connection.execute(f"create view shards as {shards}")
            self._connection.execute(f"set allowed_directories = ['{PROTOCOL}://']")
            self._connection.execute("set enable_external_access = false")
            self._connection.execute("set lock_configuration = true")

    def _make_view(self, product: Product) -> None:
        if self._files.num_parts(product):
            parts = f"read_parquet('{PROTOCOL}://{product}/*/*.parquet')"
            self._connection.execute(f"create view {product} as from {parts}")
        else:
            self._connection.register("empty", SCHEMAS[product].empty_table())
            self._connection.execute(f"create table {product} as from empty")
            self._connection.unregister("empty")

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Rows:
        """Runs one SELECT (also DESCRIBE, SUMMARIZE, SHOW TABLES, VALUES) and streams its rows.

        The rows are to be read before the next query.

        Args:
            sql: DuckDB's SQL over `clips`, `episodes` and `shards`.
            parameters: Values of `$name` in it.

        Raises:
            UsageError: If it is anything else, or DuckDB refuses it, in one line with DuckDB's hint; also while the
                rows are read.
            OSError: If the store fails.
        """
        self._check(sql)
        with self._faults():
            return self._stream(self._connection.sql(sql, params=dict(parameters or {})))

    def query_ids(self, sql: str) -> tuple[Product, Rows, int]:
        """The distinct ids of written clips or episodes that a query yields, sorted, as the one column of the rows.

        Args:
            sql: A SELECT with a column `clip_id` or `episode_id`.

        Returns:
            The product that the ids are of; the ids; how many other distinct values the column has: ids of what was
            rejected or filtered, and values that are no ids.

        Raises:
            UsageError: As for `query`, and if there is not exactly one such column.
        """
        self._check(sql)
        with self._faults():
            relation = self._connection.sql(sql)
            columns = [name for name in ("clip_id", "episode_id") if name in relation.columns]
            if len(columns) != 1:
                found = ", ".join(relation.columns)
                raise UsageError(f"expected a query with a column clip_id or episode_id, one of the two, found {found}")
            column, product = columns[0], PRODUCTS[("clip_id", "episode_id").index(columns[0])]
            chosen = f"select distinct {column} from chosen where {column} is not null"
            written = f"select {column} from {product} where status = 'written'"
            count = _of(relation, f"select count(*) from ({chosen}) where {column} not in ({written})")
            num_others: int = count.fetchall()[0][0]
            ids = _of(relation, f"from ({chosen}) where {column} in ({written}) order by {column}")
            return product, self._stream(ids), num_others

    def close(self) -> None:
        """Frees memory and temporary files."""
        self._connection.close()
        self._spill.cleanup()

    def __enter__(self) -> Manifest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, sql: str) -> None:
        with self._faults():
            kinds = [statement.type for statement in duckdb.extract_statements(sql)]
            if kinds != [duckdb.StatementType.SELECT]:
                found = ", ".join(kind.name for kind in kinds) or "nothing"
                raise UsageError(f"expected one SELECT, found {found}: the manifest is only read")
            tree = self._connection.execute("select json_serialize_sql(?)", [sql]).fetchall()[0][0]
        hidden = re.search(r'"type":"(\w+)_QUERY_NODE"', tree)  # inside a string a quote would be escaped
        if hidden:
            raise UsageError(f"expected one SELECT, found {hidden[1]} inside WITH: the manifest is only read")

    def _stream(self, relation: duckdb.DuckDBPyRelation) -> Rows:
        reader = relation.to_arrow_reader(_BATCH_ROWS)

        def batches() -> Iterator[pa.RecordBatch]:
            with self._faults():
                yield from reader

        return Rows(reader.schema, batches())

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Raises what the store raised as itself, and what DuckDB has against a query as a `UsageError`."""
        self._files.fault = None
        try:
            yield
        except (duckdb.InternalException, duckdb.FatalException):
            raise
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # while streaming, Arrow raises OSError
            if self._files.fault is not None:
                raise self._files.fault from error
            raise UsageError(_one_line(str(error))) from error


def _of(relation: duckdb.DuckDBPyRelation, sql: str) -> duckdb.DuckDBPyRelation:
    """A query over the rows of a query, which it knows as `chosen`."""
    result = relation.query("chosen", sql)
    assert result is not None  # only a statement without rows has none
    return result


def _one_line(message: str) -> str:
    """DuckDB's message with its hint, without the excerpt of the SQL; of a traceback the last line.

    >>> _one_line('Binder Error: no column "x"!\\nCandidate bindings: "y"\\n\\nLINE 1: select x\\n               ^')
    'Binder Error: no column "x"! Candidate bindings: "y"'
    """
    head, _, traceback = message.partition("Traceback (most recent call last)")
    if traceback:
        return traceback.strip().splitlines()[-1].strip()
    return " ".join(re.split(r"\n+LINE \d+:", head)[0].split())
