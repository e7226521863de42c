"""Which clip shows the same frames from another camera: for a model that also sees the scene from elsewhere.

Clips belong together if dataset, source episode, frame range and caption are the same. The other camera is the next one
by name, the first after the last, so it does not change from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.parquet_memory import read_parquet
from schemas.storage import read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.sample_columns import SampleColumns

_NUM_THREADS = 16  # a store answers many requests at a time


def pair_cameras(clips: SampleColumns, retry_s: float) -> np.ndarray:
    """For each clip the row of the one that shows the same frames from the next camera.

    Frame ranges and captions are read from the manifest parts once more, since only this needs them.

    Args:
        clips: The clips; pairs are found among them.
        retry_s: How long a store that does not answer is asked again.

    Returns:
        int64 `[N]`; -1 where no other camera shows the clip's frames.
    """
    parts = [clips.shards[code][2] for code in np.unique(clips.shard_codes).tolist()]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        table = pa.concat_tables(pool.map(lambda part: _read_ranges(part, retry_s), parts))
    places = pc.index_in(clips.ids, table["clip_id"].combine_chunks().cast(pa.large_string())).to_numpy()
    captions = table["caption"].cast(pa.large_string()).combine_chunks().dictionary_encode("encode").indices
    columns = [captions.to_numpy(), table["end_frame"].to_numpy(), table["start_frame"].to_numpy()]
    return next_camera([*(column[places] for column in columns), clips.episode_hashes], clips.camera_codes)


def next_camera(moments: Sequence[np.ndarray], cameras: np.ndarray) -> np.ndarray:
    """For each row the first one of the same moment and the next higher camera, the lowest after the highest.

    Args:
        moments: Columns `[N]` that are equal, all of them, where rows show the same moment.
        cameras: Numbers of cameras `[N]`.

    Returns:
        Rows int64 `[N]`; -1 where no other camera shows the moment.

    >>> next_camera([np.array([7, 8, 7, 7, 9])], np.array([2, 1, 0, 1, 0])).tolist()
    [2, -1, 3, 0, -1]
    """
    order = np.lexsort((cameras, *moments))
    is_new_moment = np.ones(len(order), bool)
    is_new_moment[1:] = np.any([column[order][1:] != column[order][:-1] for column in moments], axis=0)
    is_new_view = is_new_moment.copy()  # a view: the rows of one moment and one camera
    is_new_view[1:] |= cameras[order][1:] != cameras[order][:-1]
    first_of_view = np.flatnonzero(is_new_view)
    moment_of_view = (np.cumsum(is_new_moment) - 1)[first_of_view]
    first_view = np.flatnonzero(is_new_moment[first_of_view])
    views = np.arange(len(first_of_view))
    is_last = np.append(moment_of_view[1:] != moment_of_view[:-1], True)
    next_view = np.where(is_last, first_view[moment_of_view], views + 1)
    other_of_view = np.where(next_view == views, -1, order[first_of_view[next_view]])
    others = np.empty(len(order), np.int64)
    others[order] = other_of_view[np.cumsum(is_new_view) - 1]
    return others


def _read_ranges(part: str, retry_s: float) -> pa.Table:
    """Ids, frame ranges and captions of a manifest part's written clips."""
    content = retry_passing_faults(lambda: read_bytes(part), f"reading {part}", retry_s)
    columns = ["clip_id", "status", "start_frame", "end_frame", "caption"]
    table = read_parquet(content, f"manifest part {part}", columns)
    table = table.filter(pc.equal(table["status"], "written"))
    for name, empty in (("start_frame", -1), ("end_frame", -1), ("caption", "")):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pc.fill_null(table[name], empty))
    return table
