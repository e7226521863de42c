"""A selection holds what training can take: each written sample once, the same bytes for the same query."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from small_dataset import write_part

from pipelines.query import Manifest
from pipelines.selection import load_selection, save_selection
from schemas.errors import UsageError


@pytest.fixture
def url(tmp_path: Path) -> str:
    rows = [{"clip_id": f"c{n}", "status": "rejected" if n == 2 else "written"} for n in (3, 1, 2, 0)]
    write_part(str(tmp_path), "clips", "d", "000000", rows)
    write_part(str(tmp_path), "episodes", "d", "000000", [{"episode_id": "e0", "status": "written"}])
    return str(tmp_path)


def test_only_written_ids_count_and_the_others_are_told(url: str) -> None:
    sql = "select clip_id from clips union all select clip_id from clips union all values ('stranger'), (null) -- all;"
    with Manifest.open(url) as manifest:
        ids, num_others = manifest.select_ids(sql)
        assert (ids.to_pydict(), num_others) == ({"clip_id": ["c0", "c1", "c3"]}, 2)
        episodes, _ = manifest.select_ids("select * from episodes")
        assert episodes.to_pydict() == {"episode_id": ["e0"]}
        for sql in ("select 1 as n", "select clip_id, clip_id as episode_id from clips"):
            with pytest.raises(UsageError, match="one of the two"):
                manifest.select_ids(sql)


def test_the_same_query_writes_the_same_bytes(url: str) -> None:
    for name, ids in (("a", ["c3", "c1", "c3"]), ("b", ["c1", "c3", None])):
        save_selection(url, name, pa.table({"clip_id": pa.array(ids, pa.string())}), "select")
    assert Path(url, "selections/a.parquet").read_bytes() == Path(url, "selections/b.parquet").read_bytes()
    table = load_selection(url, "a")
    assert table.to_pydict() == {"clip_id": ["c1", "c3"]}
    assert table.schema.metadata == {b"sql": b"select", b"product": b"clips", b"rows": b"2"}


def test_an_empty_selection_and_another_file_are_mistakes(url: str) -> None:
    with pytest.raises(UsageError, match="at least one id"):
        save_selection(url, "none", pa.table({"clip_id": pa.array([], pa.string())}), "select")
    assert not Path(url, "selections").exists()
    Path(url, "selections").mkdir()
    Path(url, "selections/odd.parquet").write_text("no Parquet")
    with pytest.raises(UsageError, match="something else"):
        load_selection(url, "odd")
    with pytest.raises(UsageError, match="there: odd"):
        load_selection(url, "missing")
    with pytest.raises(UsageError, match="letters"):
        load_selection(url, "../../secret")
