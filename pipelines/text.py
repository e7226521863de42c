"""Embeds captions: each distinct caption of a dataset once, in batches that follow from the plan.

The batch in which a caption is encoded can change the last bits of its embedding, so batches are fixed by the plan
and not by what happens to run together: a rerun writes the same bytes. A batch is one file of rows `[20, 512]`,
float16 in NumPy's format, from which a shard reads the rows it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pipelines.decode import npy
from pipelines.plan_files import CAPTIONS_PER_FILE, load_captions
from schemas.clip import PlannedSample
from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH, TextEncoder
from schemas.layout import plan_folder
from schemas.storage import join, read_bytes, write_bytes

_ENCODER_BATCH = 64
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
    """Reads the embeddings of the samples' captions, neighbours with one request: float16 `[20, 512]` by caption."""
    captions = {sample.caption_id: sample.caption for sample in samples}
    found = {}
    for first, last in _runs(sorted(captions)):
        number, row = divmod(first, CAPTIONS_PER_FILE)
        start = _HEADER_BYTES + row * _ROW_BYTES
        count = last - first + 1
        content = read_bytes(text_url(output, dataset, number), start, start + count * _ROW_BYTES)
        rows = np.frombuffer(content, np.float16).reshape(count, TEXT_TOKENS, TEXT_WIDTH)
        found.update({captions[first + offset]: rows[offset] for offset in range(count)})
    return found


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers that lies in one file.

    >>> list(_runs([3, 4, 5, 9, 1023, 1024]))
    [(3, 5), (9, 9), (1023, 1023), (1024, 1024)]
    """
    first = previous = None
    for number in numbers:
        if first is None or previous is None:
            first = number
        elif number != previous + 1 or number % CAPTIONS_PER_FILE == 0:
            yield first, previous
            first = number
        previous = number
    if first is not None and previous is not None:
        yield first, previous
