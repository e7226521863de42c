"""What the plan says of one shard: which episodes to open, and which clips or trajectories to make of them."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.episode import Episode
from schemas.shard import Product


@dataclass(frozen=True)
class PlannedSample:
    """One clip (one camera, 16 frames), or one language-labelled trajectory (every camera, all frames of the range).

    Attributes:
        sample_id: The id: the key in the tar and in the manifest.
        camera: The clip's camera; empty for a trajectory.
        start: First source frame.
        end: One past the last source frame.
        indices: The clip's 16 source frames; empty for a trajectory, which takes all of `[start, end)`.
        caption: Clean text.
        caption_id: Row in the dataset's table of distinct captions.
    """

    sample_id: str
    camera: str
    start: int
    end: int
    indices: tuple[int, ...]
    caption: str
    caption_id: int


@dataclass(frozen=True)
class PlannedShard:
    """One tar and one manifest part, to be made in one piece.

    Attributes:
        dataset: The dataset's name.
        product: `clips` or `episodes`.
        name: The shard's name: `<product>/shards/<dataset>/<name>.tar`.
        items: Episodes in plan order, each with the samples that come from it.
    """

    dataset: str
    product: Product
    name: str
    items: tuple[tuple[Episode, tuple[PlannedSample, ...]], ...]
