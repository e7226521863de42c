"""Decodes what one planned shard needs and encodes its clips or trajectories: each video opened once, each frame
resized once.

Clips that overlap share their frames; a frame is dropped after the last clip that needs it, so memory depends on the
length of a window. Faulty data turns the samples that need it into rows with a reason; all others are made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from pipelines.encode_video import VideoSettings, encode_video
from pipelines.frames import FrameResizer, is_blank
from pipelines.manifest_rows import Members, planned_row, statistics, turned_away
from pipelines.sources.source import NumberedFrame, Source
from schemas.clip import PlannedSample, PlannedShard
from schemas.encoder import latent_shape
from schemas.episode import Episode
from schemas.errors import DataError
from schemas.shard import ACTIONS_NPY, LATENTS_NPY, PROPRIO_NPY, VIDEO
from schemas.storage import in_memory

_DEFAULT_FPS = 30.0  # playback of trajectories whose format does not tell, or tells nonsense
_SLOWEST_FPS, _FASTEST_FPS = 0.01, 1000.0


@dataclass
class Sample:
    """A clip or trajectory on its way into a shard.

    Attributes:
        row: Its manifest row so far; complete when it was turned away.
        members: Encoded contents by extension, in tar order; empty when it was turned away.
        latents_taken_over: Whether the latents came with the source.
    """

    row: dict[str, Any]
    members: Members = field(default_factory=list)
    latents_taken_over: bool = False


def decode_shard(
    shard: PlannedShard, source: Source, video: VideoSettings, take_over_latents: bool = True
) -> list[Sample]:
    """Makes the samples of a shard, in plan order; nothing raised by faulty data comes out of here.

    Args:
        shard: What to make.
        source: The opened source of the shard's dataset.
        video: How videos are encoded.
        take_over_latents: Whether latents that the source brings are stored.

    Returns:
        One entry for each planned sample.
    """
    samples: list[Sample] = []
    for episode, planned in shard.items:
        if shard.product == "clips":
            made = _clips(shard.dataset, episode, planned, source, video, take_over_latents)
        else:
            made = {
                sample.sample_id: _trajectory(shard.dataset, episode, sample, source, video, take_over_latents)
                for sample in planned
            }
        samples.extend(made[sample.sample_id] for sample in planned)
    return samples


def _clips(
    dataset: str,
    episode: Episode,
    planned: Sequence[PlannedSample],
    source: Source,
    video: VideoSettings,
    take_over_latents: bool,
) -> dict[str, Sample]:
    made: dict[str, Sample] = {}
    by_camera: dict[str, list[PlannedSample]] = defaultdict(list)
    for clip in planned:
        by_camera[clip.camera].append(clip)
    for camera, clips in by_camera.items():
        try:
            latents, note = _source_latents(source, episode, camera, video) if take_over_latents else (None, "")
            frames = source.frames(episode, camera, _all_indices(clips))
            for clip, gathered in _gather(clips, frames, FrameResizer(video.frame_size)):
                row = planned_row("clips", dataset, episode, clip)
                made[clip.sample_id] = _clip(row | {"detail": note}, gathered, video, latents)
        except DataError as error:
            for clip in clips:
                if clip.sample_id not in made:
                    row = planned_row("clips", dataset, episode, clip)
                    made[clip.sample_id] = Sample(turned_away(row, "rejected", error.reason, error.detail))
    return made


def _source_latents(
    source: Source, episode: Episode, camera: str, video: VideoSettings
) -> tuple[np.ndarray | None, str]:
    """Latents that the source brings, or why they are not taken: the video is as good without.

    Raises:
        DataError: `unsafe_pickle`: nothing of an episode with a hostile file is taken.
    """
    try:
        latents = source.latents(episode, camera)
    except DataError as error:
        if error.reason == "unsafe_pickle":
            raise
        return None, f"latents not taken over: {error}"
    expected = latent_shape(video.frame_size)
    if latents is not None and latents.shape[1:] != expected:
        return None, f"latents not taken over: expected {expected} for stored frames, found {latents.shape[1:]}"
    return latents, ""


def _clip(
    row: dict[str, Any], frames: list[av.VideoFrame] | DataError, video: VideoSettings, latents: np.ndarray | None
) -> Sample:
    if isinstance(frames, DataError):
        return Sample(turned_away(row, "rejected", frames.reason, frames.detail))
    if is_blank(frames):
        return Sample(turned_away(row, "filtered", "blank", f"camera {row['camera']} shows nothing"))
    members = [(VIDEO, encode_video(frames, video))]
    if latents is not None:
        members.append((LATENTS_NPY, latents_npy(latents[row["frame_indices"]])))
    return Sample(row, members, latents is not None)


def _all_indices(clips: Iterable[PlannedSample]) -> list[int]:
    return sorted({index for clip in clips for index in clip.indices})


def _gather(
    clips: Sequence[PlannedSample], frames: Iterator[NumberedFrame], resize: FrameResizer
) -> Iterator[tuple[PlannedSample, list[av.VideoFrame] | DataError]]:
    """Yields each clip with its resized frames, or the first fault among them, as soon as its last frame has come."""
    waiting = sorted(clips, key=lambda clip: (clip.indices[-1], clip.indices))
    uses = Counter(index for clip in clips for index in set(clip.indices))
    held: dict[int, av.VideoFrame | DataError] = {}
    position = 0
    for index, frame in frames:
        held[index] = _resized(frame, resize)
        while position < len(waiting) and waiting[position].indices[-1] == index:
            clip = waiting[position]
            needed = [held[number] for number in clip.indices]
            fault = next((entry for entry in needed if isinstance(entry, DataError)), None)
            yield clip, fault or [entry for entry in needed if isinstance(entry, av.VideoFrame)]
            for number in set(clip.indices):
                uses[number] -= 1
                if not uses[number]:
                    del held[number]
            position += 1


def _resized(frame: av.VideoFrame | DataError, resize: FrameResizer) -> av.VideoFrame | DataError:
    if isinstance(frame, DataError):
        return frame
    try:
        return resize(frame)
    except DataError as error:
        return error


def _whole(frames: Iterator[NumberedFrame], resize: FrameResizer) -> Iterator[av.VideoFrame]:
    """Resizes frames of which none may be missing."""
    for _, frame in frames:
        if isinstance(frame, DataError):
            raise frame
        yield resize(frame)


def _trajectory(
    dataset: str,
    episode: Episode,
    planned: PlannedSample,
    source: Source,
    video: VideoSettings,
    take_over_latents: bool,
) -> Sample:
    row = planned_row("episodes", dataset, episode, planned)
    try:
        trajectory = source.trajectory(episode, planned.start, planned.end)
        if trajectory is None:
            raise DataError("missing_actions", f"expected actions, found none in {episode.source_url}")
        members: Members = []
        all_latents: Members = []
        for camera in episode.cameras:
            resize = FrameResizer(video.frame_size)
            frames = _whole(source.frames(episode, camera, range(planned.start, planned.end)), resize)
            fps = episode.fps if _SLOWEST_FPS <= episode.fps <= _FASTEST_FPS else _DEFAULT_FPS
            members.append((f"{camera}.{VIDEO}", encode_video(frames, video, fps, video.keyframe_every)))
            latents, note = _source_latents(source, episode, camera, video) if take_over_latents else (None, "")
            row["detail"] = note or row.get("detail", "")
            if latents is not None:
                all_latents.append((f"{camera}.{LATENTS_NPY}", latents_npy(latents[planned.start : planned.end])))
        members.append((ACTIONS_NPY, npy(_checked("actions", trajectory.actions))))
        row |= {"num_actions": len(trajectory.actions), "action_dim": trajectory.actions.shape[1]}
        row |= statistics("action", trajectory.actions)
        if trajectory.proprio is not None:
            members.append((PROPRIO_NPY, npy(_checked("proprio", trajectory.proprio))))
            row |= {"proprio_dim": trajectory.proprio.shape[1]} | statistics("proprio", trajectory.proprio)
    except DataError as error:
        return Sample(turned_away(row, "rejected", error.reason, error.detail))
    return Sample(row, members + all_latents, bool(all_latents))


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        raise DataError("bad_numbers", f"expected finite {name} of shape [T, D], found shape {values.shape} or NaN")
    return values.astype(np.float32)


def latents_npy(latents: np.ndarray) -> bytes:
    """Scaled latents `[T, 4, h, w]` as they are stored: float16 in NumPy's format."""
    return npy(latents.astype(np.float16))


def npy(values: np.ndarray) -> bytes:
    """An array in NumPy's file format."""
    return in_memory(lambda handle: np.save(handle, values, allow_pickle=False))
