"""SQL over a dataset's manifest, read-only: DuckDB in memory, with the views `clips`, `episodes` and `shards`.

Only one SELECT at a time is run. DuckDB sees no files but the manifest's parts (`pipelines.manifest_files`), loads no
extensions and keeps its settings. Results stream; what a query needs beyond the memory limit goes to a temporary
folder.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import duckdb
import pyarrow as pa

from pipelines.manifest_files import PROTOCOL, ManifestFiles
from pipelines.named_queries import NAMED_QUERIES
from pipelines.selection import ID_COLUMNS, id_column, load_selection, save_selection
from schemas.errors import UsageError
from schemas.layout import manifest_folder
from schemas.manifest import SCHEMAS
from schemas.shard import PRODUCTS
from schemas.storage import is_local

__all__ = ["NAMED_QUERIES", "Manifest", "Rows", "load_selection", "save_selection"]

Parameters = Sequence[object] | Mapping[str, object]

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

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.Table.from_batches(self.batches, self.schema)


class Manifest:
    """A dataset's manifest as it is when opened; a context manager, for those who want to free it early.

    Args:
        url: The dataset: the output of `jobs/preprocess.py`. A product that was not made is an empty view.
        memory_limit: What DuckDB may use before it spills to disk, such as `4GB`.
        num_threads: 0 for one a core, or 16 where the manifest is remote.

    Raises:
        UsageError: If there is no manifest, or a setting is wrong.
    """

    def __init__(self, url: str, memory_limit: str = "4GB", num_threads: int = 0) -> None:
        self._files = ManifestFiles(url)
        if not any(self._files.num_parts(product) for product in PRODUCTS):
            expected = " or ".join(manifest_folder(url, product) for product in PRODUCTS)
            raise UsageError(f"{url}: expected a manifest, the output of jobs/preprocess.py, found no {expected}")
        self._spill = tempfile.TemporaryDirectory(prefix="vpp-query-")
        self._connection = duckdb.connect(":memory:")
        self._connection.register_filesystem(self._files)
        settings = {
            "temp_directory": self._spill.name,
            "memory_limit": memory_limit,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",  # or a query could read this program's variables
            "enable_progress_bar": "false",  # it would stand among the rows on stdout
            "parquet_metadata_cache": "true",
            "cache_local_files": "true",  # DuckDB takes the registered filesystem for a local one
            "validate_external_file_cache": "NO_VALIDATION",  # a part never changes
        }
        if num_threads or not is_local(url):
            settings["threads"] = str(num_threads or _REMOTE_THREADS)
        with self._faults():
            for name, value in settings.items():
                self._connection.execute(f"set {name} = {_literal(value)}")
            self._make_views()
            self._connection.execute(f"set allowed_directories = ['{PROTOCOL}://']")
            self._connection.execute("set enable_external_access = false")
            self._connection.execute("set lock_configuration = true")

    @classmethod
    def open(cls, url: str, memory_limit: str = "4GB", num_threads: int = 0) -> Manifest:
        """Opens a manifest: `with Manifest.open(url) as manifest`."""
        return cls(url, memory_limit, num_threads)

    def _make_views(self) -> None:
        for product in PRODUCTS:
            if self._files.num_parts(product):
                parts = f"read_parquet('{PROTOCOL}://{product}/*/*.parquet')"
                self._connection.execute(f"create view {product} as from {parts}")
            else:
                self._connection.register("empty", SCHEMAS[product].empty_table())
                self._connection.execute(f"create table {product} as from empty")
                self._connection.unregister("empty")
        shards = " union all ".join(_SHARDS_OF_PRODUCT.format(product=product) for product in PRODUCTS)
        self._connection.execute(f"create view shards as {shards}")

    def stream(self, sql: str, parameters: Parameters = ()) -> Rows:
        """Runs one SELECT (also DESCRIBE, SUMMARIZE, SHOW TABLES, VALUES) and streams its rows.

        The rows are to be read before the next query.

        Args:
            sql: DuckDB's SQL over `clips`, `episodes` and `shards`.
            parameters: Values of `?` in it, or by name of `$name`.

        Raises:
            UsageError: If it is anything else, or DuckDB refuses it, in one line with DuckDB's hint; also while the
                rows are read.
            OSError: If the store fails.
        """
        self._check(sql)
        values = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        with self._faults():
            return self._rows(self._connection.sql(sql, params=values))

    def select(self, sql: str, parameters: Parameters = ()) -> pa.Table:
        """Runs one SELECT and returns its whole result; raises as `stream` does."""
        return self.stream(sql, parameters).table()

    def named(self, name: str, like: str = "") -> pa.Table:
        """Runs one of `NAMED_QUERIES`."""
        query = NAMED_QUERIES[name]
        return self.select(query.sql, query.bind(like))

    def select_ids(self, sql: str) -> tuple[pa.Table, int]:
        """The distinct ids of written clips or episodes that a query yields: what training can take.

        Args:
            sql: A SELECT with a column `clip_id` or `episode_id`.

        Returns:
            One column of that name, sorted; and how many other distinct values the query's column has: ids of what
            was rejected or filtered, and values that are no ids.

        Raises:
            UsageError: As for `stream`, and if there is not exactly one such column.
        """
        self._check(sql)
        with self._faults():
            relation = self._connection.sql(sql)
            column = id_column(relation.columns)
            chosen = f"select distinct {column} from chosen where {column} is not null"
            written = f"select {column} from {ID_COLUMNS[column]} where status = 'written'"
            count = _of(relation, f"select count(*) from ({chosen}) where {column} not in ({written})")
            num_others: int = count.fetchall()[0][0]
            ids = _of(relation, f"from ({chosen}) where {column} in ({written}) order by {column}")
            return self._rows(ids).table(), num_others

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

    def _rows(self, relation: duckdb.DuckDBPyRelation) -> Rows:
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


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


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
