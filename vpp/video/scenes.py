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
        frames: RGB uint8 `[T, S, S, 3]`: the first frame alone, or all where the truth is known.
        other_view: RGB uint8 `[S, S, 3]`: the first frame from another camera; None without an image condition.
    """

    name: str
    text: str
    frames: torch.Tensor
    other_view: torch.Tensor | None = None


def picture_scene(image: str, text: str, other_view: str = "", frame_size: int = FRAME_SIZE_PX) -> Scene:
    """A picture of any size, and perhaps one from another camera, stretched to a square as clips are.

    Args:
        image: File or URL.
        text: The caption.
        other_view: File or URL of the other camera's picture; empty for none.
        frame_size: Height and width in pixels of the frames that the model was trained on.

    Raises:
        UsageError: If there is no file or it is no picture.
    """
    other = _read_picture("--other-view", other_view, frame_size) if other_view else None
    return Scene("prediction", text, _read_picture("--image", image, frame_size)[None], other)


def _read_picture(option: str, url: str, size: int) -> torch.Tensor:
    try:
        picture = Image.open(io.BytesIO(read_bytes(url))).convert("RGB")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"{option} {url}: expected a picture's file or URL, found no file") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        detail = " ".join(str(error).split())
        raise UsageError(f"{option} {url}: expected a picture, cannot read it: {detail}") from error
    shrinks = min(picture.size) >= size
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC  # as clips are resized
    return torch.from_numpy(np.array(picture.resize((size, size), resample)))


def clip_scenes(data: str, clip_ids: Sequence[str], text: str = "", has_other_view: bool = False) -> list[Scene]:
    """Clips of a dataset; a single one is called `prediction`, several by their ids.

    Args:
        data: Folder or URL that `jobs/preprocess.py` wrote.
        clip_ids: The wanted ones.
        text: In the place of their own captions.
        has_other_view: Whether another camera's picture is wanted.

    Raises:
        UsageError: If there is no such dataset or clip, it cannot be read, or no other camera shows it.
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
        clips = read_clips(index, rows, "frames", other_camera=has_other_view)
    except DataError as error:
        raise UsageError(f"--clip: expected clips that can be read: {error}") from error
    assert clips.frames is not None
    other_views = [None] * len(rows) if clips.other_view is None else list(clips.other_view)
    names = clip_ids if len(clip_ids) > 1 else ("prediction",)
    captions = index.captions(rows)
    return [
        Scene(name, text or caption, clip, other_view)
        for name, caption, clip, other_view in zip(names, captions, clips.frames, other_views, strict=True)
    ]
