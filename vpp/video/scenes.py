"""What a prediction starts from: a picture with a text, or clips of a dataset whose truth is known."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from schemas.errors import DataError, UsageError
from schemas.shard import FRAME_SIZE_PX
from schemas.storage import read_bytes
from vpp.data.clip_index import ClipIndex
from vpp.data.clip_reader import read_clips


@dataclass(frozen=True)
class Scene:
    """What a prediction starts from.

    Attributes:
        name: What its files are called.
        text: The caption.
        frames: RGB uint8 `[T, 256, 256, 3]`: the first frame alone, or all where the truth is known.
    """

    name: str
    text: str
    frames: torch.Tensor


def picture_scene(image: str, text: str) -> Scene:
    """A picture of any size, stretched to 256x256 as clips are.

    Args:
        image: File or URL.
        text: The caption.

    Raises:
        UsageError: If there is no file or it is no picture.
    """
    try:
        picture = Image.open(io.BytesIO(read_bytes(image))).convert("RGB")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"--image {image}: expected a picture's file or URL, found no file") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        detail = " ".join(str(error).split())
        raise UsageError(f"--image {image}: expected a picture, cannot read it: {detail}") from error
    shrinks = min(picture.size) >= FRAME_SIZE_PX
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC  # as clips are resized
    pixels = np.array(picture.resize((FRAME_SIZE_PX, FRAME_SIZE_PX), resample))
    return Scene("prediction", text, torch.from_numpy(pixels)[None])


def clip_scenes(data: str, clip_ids: Sequence[str], text: str = "") -> list[Scene]:
    """Clips of a dataset; a single one is called `prediction`, several by their ids.

    Args:
        data: Folder or URL that `jobs/preprocess.py` wrote.
        clip_ids: The wanted ones.
        text: In the place of their own captions.

    Raises:
        UsageError: If there is no such dataset or clip, or it cannot be read.
    """
    index = ClipIndex.read(data)
    row_of = dict(zip(index.clip_ids(np.arange(len(index))), range(len(index)), strict=True))
    unknown = [clip_id for clip_id in clip_ids if clip_id not in row_of]
    if unknown:
        raise UsageError(
            f"--clip {' '.join(unknown)}: expected ids of written clips of {data}, such as "
            f'{next(iter(row_of))}; list them with jobs/query.py {data} "select clip_id, caption from clips"'
        )
    rows = np.array([row_of[clip_id] for clip_id in clip_ids])
    try:
        frames = read_clips(index, rows, "frames").frames
    except DataError as error:
        raise UsageError(f"--clip: expected clips that can be read: {error}") from error
    assert frames is not None
    names = clip_ids if len(clip_ids) > 1 else ("prediction",)
    captions = index.captions(rows)
    return [Scene(name, text or caption, clip) for name, caption, clip in zip(names, captions, frames, strict=True)]
