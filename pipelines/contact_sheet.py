"""A contact sheet of a dataset: clips to look at, spread over datasets and cameras, as a picture and as a web page.

Each clip is read from its shard with one range request. The page is one file that needs no network: the clips play in
it, and it lists what was written and what was turned away and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

import av.error

from pipelines.contact_sheet_card import SHOWN_FRAMES, Card
from pipelines.contact_sheet_image import draw_image
from pipelines.contact_sheet_page import write_page
from pipelines.encode_video import decode_frames
from pipelines.query import Manifest
from pipelines.range_read import read_members
from schemas.errors import DataError, UsageError
from schemas.shard import NUM_FRAMES, VIDEO
from schemas.storage import join, write_bytes

_COLUMNS = "clip_id, dataset, camera, split, source_episode, caption, start_frame, end_frame, shard, members"


def write_contact_sheet(dataset_url: str, out_url: str, num_clips: int = 24, seed: int = 0) -> dict[str, Any]:
    """Writes `contact_sheet.png` and `contact_sheet.html`.

    Args:
        dataset_url: The dataset: the output of `jobs/preprocess.py`.
        out_url: Folder to write to.
        num_clips: How many clips to show; fewer where there are fewer.
        seed: Which clips: the same ones for the same manifest and seed.

    Returns:
        The URLs `picture` and `page`; `num_clips`, the number shown, and the `cards` themselves. A clip that cannot be
        read or decoded is shown with the reason.

    Raises:
        UsageError: If there is no manifest, or `num_clips` is less than 1.
    """
    if num_clips < 1:
        raise UsageError(f"contact sheet: expected at least 1 clip, found {num_clips}")
    with Manifest.open(dataset_url) as manifest:
        rows = choose_clips(manifest, num_clips, seed)
        counts, rejected = (manifest.named(name).to_pylist() for name in ("counts", "rejected"))
    cards = [_card(dataset_url, row) for row in rows]
    picture, page = join(out_url, "contact_sheet.png"), join(out_url, "contact_sheet.html")
    write_bytes(picture, draw_image(cards))
    write_bytes(page, write_page(dataset_url, cards, counts, rejected))
    return {"picture": picture, "page": page, "num_clips": len(cards), "cards": cards}


def choose_clips(manifest: Manifest, num_clips: int, seed: int) -> list[dict[str, Any]]:
    """Rows of written clips: datasets take turns, and within a dataset its cameras; chance, from `seed`, does the rest.

    Returns:
        At most `num_clips` rows, by dataset, camera and id.
    """
    groups = manifest.select(
        f"""select dataset, arg_min(clip_id, md5($seed || clip_id), {int(num_clips)}) as ids from clips
            where status = 'written' group by dataset, camera order by dataset, camera""",
        {"seed": f"{seed} "},
    ).to_pylist()
    of_dataset: dict[str, list[list[str]]] = {}
    for group in groups:
        of_dataset.setdefault(group["dataset"], []).append(group["ids"])
    chosen = list(_take_turns([list(_take_turns(cameras)) for cameras in of_dataset.values()]))[:num_clips]
    sql = f"select {_COLUMNS} from clips where list_contains($ids, clip_id) and status = 'written'"
    rows = manifest.select(sql, {"ids": chosen}).to_pylist() if chosen else []
    return sorted(rows, key=lambda row: (row["dataset"], row["camera"], row["clip_id"]))


def _take_turns(queues: list[list[str]]) -> Iterator[str]:
    """First of each, then second of each, ..."""
    for turn in zip_longest(*queues):
        yield from (item for item in turn if item is not None)


def _card(dataset_url: str, row: dict[str, Any]) -> Card:
    try:
        video = read_members(dataset_url, "clips", row, [VIDEO])[VIDEO]
    except DataError as error:
        return Card(row, fault=str(error))
    try:
        frames = list(islice(decode_frames(video), NUM_FRAMES + 1))
    except (av.error.FFmpegError, DataError, ValueError) as error:
        return Card(row, fault=f"decode_error: {error}")
    if len(frames) != NUM_FRAMES:
        more = " or more" * (len(frames) > NUM_FRAMES)
        return Card(row, fault=f"decode_error: expected {NUM_FRAMES} frames, found {len(frames)}{more}")
    return Card(row, video, {number: frames[number] for number in SHOWN_FRAMES})
