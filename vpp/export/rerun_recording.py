"""Writes an episode as a recording for rerun's viewer: views, actions, proprioception and caption on one time line.

Videos go in as they are stored. The package is an extra: `pip install video-prediction-policy[rerun]`.
"""

from __future__ import annotations

from typing import Any

from schemas.errors import UsageError
from schemas.storage import write_bytes
from vpp.data.episode_reader import StoredEpisode
from vpp.export.lerobot import playback_fps


def write_recording(episode: StoredEpisode, output: str, fps: float = 0.0) -> float:
    """Writes `.rrd`; the episode and its recording are in memory.

    Args:
        episode: What is shown.
        output: URL of the file.
        fps: Frames a second on the time line; 0 for that of the stored videos.

    Returns:
        The rate.

    Raises:
        UsageError: If rerun is not installed, or a video is damaged.
    """
    rr = _rerun()
    played = playback_fps(episode)
    rate = fps or played
    recording = rr.RecordingStream("video-prediction-policy", recording_id=episode.episode_id)
    stream = recording.binary_stream()
    recording.log("caption", rr.TextDocument(episode.caption), static=True)
    for camera, video in episode.videos.items():
        asset = rr.AssetVideo(contents=video, media_type="video/mp4")
        shown_ns = asset.read_frame_timestamps_nanos()
        recording.log(f"cameras/{camera}", asset, static=True)
        recording.send_columns(
            f"cameras/{camera}",
            indexes=[
                rr.TimeColumn("frame", sequence=range(len(shown_ns))),
                rr.TimeColumn("time", duration=[number / rate for number in range(len(shown_ns))]),
            ],
            columns=rr.VideoFrameReference.columns_nanos(shown_ns),
        )
    for name, values in (("action", episode.actions), ("state", episode.proprio)):
        for number, row in enumerate(() if values is None else values.tolist()):
            recording.set_time("frame", sequence=number)
            recording.set_time("time", duration=number / rate)
            recording.log(name, rr.Scalars(row))
    write_bytes(output, stream.read() or b"")
    return rate


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise UsageError(
            "--format rerun: expected the package rerun-sdk, found none; install the extra rerun"
        ) from error
    return rerun
