"""What a source lists: episodes, their language segments, and what was left out, as plain data.

Every frame range is half-open, `[start, end)`, in frame numbers of the episode that begin at 0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

MAX_FRAMES = 1 << 21
"""Of an episode or a video: 19 hours at 30 frames per second. What claims more would fill disks with clips of it."""

Status = Literal["written", "rejected", "filtered"]


@dataclass(frozen=True)
class Segment:
    """A stretch of an episode with one caption: a language label, a narration, or the whole episode.

    Attributes:
        start: First frame.
        end: One past the last frame.
        caption: Clean text, never empty.
    """

    start: int
    end: int
    caption: str


@dataclass(frozen=True)
class LeftOut:
    """Something that will not become a clip, with the reason; it becomes a manifest row.

    Attributes:
        status: `rejected` (faulty data) or `filtered` (sound data that a setting or an annotation excludes).
        reason: A short snake_case word to group by: `unsure_narration`, `redacted`, `missing_file`, ...
        detail: One line for people.
        episode_id: The episode concerned; empty when a whole source file is.
        caption: The caption concerned, or empty.
        start: First frame, or None when it concerns the whole episode.
        end: One past the last frame, or None.
        split: The split concerned, or empty.
        source_url: The file concerned, or empty.
    """

    status: Literal["rejected", "filtered"]
    reason: str
    detail: str
    episode_id: str = ""
    caption: str = ""
    start: int | None = None
    end: int | None = None
    split: str = ""
    source_url: str = ""


@dataclass(frozen=True)
class Episode:
    """One source trajectory or video, listed without decoding a frame.

    Attributes:
        episode_id: Unique within its dataset and stable: it does not depend on where the data lies.
        split: The source's own name for it: `train`, `val`, `training`, ...
        source_url: The file that holds it (the first one, where there are several).
        num_frames: Number of frames of every camera.
        fps: Frames per second, 0.0 where the format does not tell.
        cameras: Camera names, in a fixed order, without dots or slashes (they become file extensions).
        segments: Captioned ranges in order of start. An episode with one caption has one segment `[0, num_frames)`.
        action_dim: Number of action dimensions, 0 where the set has no actions.
        left_out: Narrations, segments or cameras of this episode that are not used, with reasons.
        redacted: Ranges `(start, end)` that no clip may touch.
        locator: What the source needs to open the episode again: JSON values, opaque to everyone else.
    """

    episode_id: str
    split: str
    source_url: str
    num_frames: int
    fps: float
    cameras: tuple[str, ...]
    segments: tuple[Segment, ...] = ()
    action_dim: int = 0
    left_out: tuple[LeftOut, ...] = ()
    redacted: tuple[tuple[int, int], ...] = ()
    locator: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The episode as one line of JSON, the same for equal episodes."""
        return json.dumps(vars(self), default=vars, sort_keys=True)  # asdict would copy all of it

    @classmethod
    def from_json(cls, text: str) -> Episode:
        """Reads what `to_json` wrote."""
        raw = json.loads(text)
        raw["cameras"] = tuple(raw["cameras"])
        raw["segments"] = tuple(Segment(**segment) for segment in raw["segments"])
        raw["left_out"] = tuple(LeftOut(**left_out) for left_out in raw["left_out"])
        raw["redacted"] = tuple((start, end) for start, end in raw["redacted"])
        return cls(**raw)
