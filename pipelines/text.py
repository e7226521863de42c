"""Embeds captions: each distinct caption of a dataset once, in batches that follow from the plan.

The batch in which a caption is encoded can change the last bits of its embedding, so batches are fixed by the plan
and not by what happens to run together: a rerun writes the same bytes. A batch is one file of rows `[20, 512]`,
float16 in NumPy's format, from which a shard reads the rows it needs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipelines.decode import npy
from pipelines.plan_files import CAPTIONS_PER_FILE, load_captions
from schemas.clip import PlannedSample
from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH, TextEncoder
from schemas.layout import plan_folder
from schemas.storage import join, read_bytes, write_bytes

_ENCODER_BATCH = 64
_READERS = 16  # on an object store, reading rows is waiting
_MOST_ROWS_BETWEEN = 12  # a store sends these 240 kB in less time than it takes to answer another request
_ROW_BYTES = TEXT_TOKENS * TEXT_WIDTH * 2
_HEADER_BYTES = 128  # of a .npy file with a short header; checked when one is written


def text_url(output: str, dataset: str, number: int) -> str:
    """Where the embeddings of one batch of captions lie."""
    return join(plan_folder(output, dataset), "text", f"{number:06d}.npy")


def encode_captions(output: str, dataset: str, number: int, encoder: TextEncoder) -> int:
    """Encodes one batch of captions into its file; returns how many."""
    captions = load_captions(output, dataset, number)
    batches = [captions[first : first + _ENCODER_BATCH] for first in range(0, len(captions), _ENCODER_BATCH)]
    embeddings = np.concatenate([encoder.encode(batch) for batch in batches])
    if embeddings.shape != (len(captions), TEXT_TOKENS, TEXT_WIDTH) or embeddings.dtype != np.float16:
        expected = f"float16 [{len(captions)}, {TEXT_TOKENS}, {TEXT_WIDTH}]"
        raise ValueError(
            f"text encoder {encoder.model_id}: expected {expected}, found {embeddings.dtype} {embeddings.shape}"
        )
    content = npy(np.ascontiguousarray(embeddings))
    assert len(content) == _HEADER_BYTES + _ROW_BYTES * len(captions)
    write_bytes(text_url(output, dataset, number), content)
    return len(captions)


def read_embeddings(output: str, dataset: str, samples: Iterable[PlannedSample]) -> dict[str, np.ndarray]:
    """Reads the embeddings of the samples' captions, near ones with one request: float16 `[20, 512]` by caption."""
    captions = {sample.caption_id: sample.caption for sample in samples}
    numbers = sorted(captions)

    def read(run: range) -> dict[str, np.ndarray]:
        number, row = divmod(run.start, CAPTIONS_PER_FILE)
        start = _HEADER_BYTES + row * _ROW_BYTES
        content = read_bytes(text_url(output, dataset, number), start, start + len(run) * _ROW_BYTES)
        rows = np.frombuffer(content, np.float16).reshape(len(run), TEXT_TOKENS, TEXT_WIDTH)
        wanted = numbers[bisect_left(numbers, run.start) : bisect_left(numbers, run.stop)]
        return {captions[number]: rows[number - run.start].copy() for number in wanted}  # without the rows between

    found: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for of_run in readers.map(read, _runs(numbers)):
            found |= of_run
    return found


def _runs(numbers: Iterable[int]) -> Iterator[range]:
    """Rows to read together: those of one file with few rows between them. Captions that come again are scattered.

    >>> list(_runs([3, 4, 5, 9, 300, 1023, 1024]))
    [range(3, 10), range(300, 301), range(1023, 1024), range(1024, 1025)]
    """
    run = range(0)
    for number in numbers:
        is_in_file = number // CAPTIONS_PER_FILE == run.start // CAPTIONS_PER_FILE
        if run and is_in_file and number - run.stop <= _MOST_ROWS_BETWEEN:
            run = range(run.start, number + 1)
        else:
            if run:
                yield run
            run = range(number, number + 1)
    if run:
        yield run
