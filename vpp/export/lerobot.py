"""Writes the episodes of a dataset as a LeRobot v3.0 dataset, with a card for the hub.

What goes along: every view, its packets as they are stored, so that frames are the same to the last bit; actions,
proprioception and the caption, which becomes the task. What does not: CLIP's embeddings and latents, which LeRobot has
no place for, and where an episode came from. Names of the numbers are not known, so they are counted.

Memory goes by `vpp.sim.lerobot_writer.FILE_BYTES`, whatever the number of episodes.
"""

from __future__ import annotations

import io
import json
from typing import Any

import av.error
import numpy as np

from runtime.log_lines import progress_bar
from runtime.settings import commit, to_mapping
from schemas.closed_video import MP4, open_closed, video_stream
from schemas.errors import DataError, UsageError
from schemas.hub_card import CARD, NO_LICENCE, code, hub_card, table
from schemas.storage import check_writable, exists, join, list_names, read_bytes, write_bytes
from vpp.data.episode_reader import EpisodeReader, StoredEpisode
from vpp.sim.lerobot_statistics import PictureStatistics, Statistics
from vpp.sim.lerobot_writer import LeRobotWriter, RecordedEpisode, is_complete

RECORD = "meta/export.json"
"""What was asked for; written first, and completed last but one."""


def export_lerobot(reader: EpisodeReader, output: str, fps: float, settings: Any) -> dict[str, Any]:
    """Writes all episodes; an export that was cut begins anew, one that is complete is found.

    Args:
        reader: The episodes.
        output: URL of the folder.
        fps: Frames a second; 0 for that of the stored videos.
        settings: A dataclass; the same are needed to write under the same output again.

    Returns:
        `dataset`, `episodes`, `frames`, `fps`.

    Raises:
        UsageError: If the output holds something else, or another number of episodes, or videos differ in rate, size or
            encoder.
    """
    found = _claim(output, to_mapping(settings))
    if found is not None:
        if found["episodes"] != len(reader):
            raise UsageError(
                f"--output {output}: holds an export of {found['episodes']} episodes, found {len(reader)} to export "
                "now; name another folder"
            )
        return found
    first = reader.read(0)
    rate = fps or playback_fps(first)
    names = [[f"{name}_{number}" for number in range(size)] for name, size in _sizes(reader)]
    writer = LeRobotWriter(output, rate, "unknown", *names)
    num_frames = 0
    with progress_bar("export", len(reader), "episode") as bar:
        for episode in reader:
            if not fps and playback_fps(episode) != rate:
                raise UsageError(
                    f"episode {episode.episode_id} of {reader.dataset}: expected videos of {rate:g} frames a second as "
                    f"in {first.episode_id}, found {playback_fps(episode):g}; name one rate for all with --fps"
                )
            recorded = _recorded(episode)
            num_frames += len(recorded.actions)
            try:
                writer.add(recorded)
            except (ValueError, DataError, av.error.FFmpegError) as error:
                raise UsageError(
                    f"{reader.dataset}, up to episode {episode.episode_id}: {error}; export those of one size and "
                    "encoder with --selection"
                ) from error
            bar.update(1)
    result = {"dataset": reader.dataset, "episodes": len(reader), "frames": num_frames, "fps": rate}
    write_bytes(join(output, CARD), _card(reader, result).encode())
    _write_record(output, {"settings": to_mapping(settings), "result": result, "commit": commit()})
    writer.finish()
    return result


def playback_fps(episode: StoredEpisode) -> float:
    """Frames a second at which an episode's first video plays.

    Raises:
        UsageError: If it is no video.
    """
    video = next(iter(episode.videos.values()))
    try:
        with open_closed(io.BytesIO(video), MP4) as container:
            rate = video_stream(container).average_rate
    except (DataError, av.error.FFmpegError) as error:
        raise _damaged(episode, error) from error
    if not rate:
        raise _damaged(episode, DataError("not_a_video", "expected a video with a frame rate"))
    return float(rate)


def _sizes(reader: EpisodeReader) -> list[tuple[str, int]]:
    return [("action", reader.action_dim), ("state", reader.proprio_dim)]


def _recorded(episode: StoredEpisode) -> RecordedEpisode:
    """LeRobot has an action with every frame: frames behind the last action stay in the video alone."""
    statistics: dict[str, Statistics] = {}
    num_pictures: set[int] = set()
    for camera, video in episode.videos.items():
        try:
            statistics[camera], number = _look_at(video)
        except (DataError, av.error.FFmpegError) as error:
            raise _damaged(episode, error) from error
        num_pictures.add(number)
    length = len(episode.actions)
    if len(num_pictures) != 1 or min(num_pictures) < length:
        told = DataError("wrong_num_frames", f"expected {length} pictures or more, found {sorted(num_pictures)}")
        raise _damaged(episode, told)
    states = np.zeros((length, 0), np.float32) if episode.proprio is None else episode.proprio[:length]
    return RecordedEpisode(
        episode.caption, episode.videos, episode.actions, states, statistics, num_pictures=num_pictures.pop()
    )


def _look_at(video: bytes) -> tuple[Statistics, int]:
    """Statistics of a video's keyframes, which alone are decoded, and its number of pictures."""
    statistics = PictureStatistics(stride=1)
    with open_closed(io.BytesIO(video), MP4) as container:
        stream = video_stream(container)
        stream.codec_context.skip_frame = "NONKEY"
        for frame in container.decode(stream):
            statistics.add(frame.to_ndarray(format="rgb24"))
        return statistics.finish(), stream.frames


def _damaged(episode: StoredEpisode, error: Exception) -> UsageError:
    return UsageError(f"episode {episode.episode_id}: {error}; choose others with jobs/query.py --save")


def _claim(output: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What a complete export told; None for one that is to be written.

    Raises:
        UsageError: If the folder holds something else.
    """
    if exists(join(output, RECORD)):
        record: dict[str, Any] = json.loads(read_bytes(join(output, RECORD)))
        asked = {name: value for name, value in settings.items() if name != "output"}  # a folder has many names
        different = [name for name, value in asked.items() if record["settings"].get(name) != value]
        if different:
            raise UsageError(f"--output {output}: holds an export with another {different[0]}; name another folder")
        if is_complete(output):
            result: dict[str, Any] = record["result"]
            return result
    elif list_names(output):
        raise UsageError(f"--output {output}: expected an empty folder, or an export of this job, found something else")
    check_writable(output)
    _write_record(output, {"settings": settings})
    return None


def _write_record(output: str, content: dict[str, Any]) -> None:
    write_bytes(join(output, RECORD), (json.dumps(content, indent=1) + "\n").encode())


def _card(reader: EpisodeReader, result: dict[str, Any]) -> str:
    front = {
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "video-prediction-policy"],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    rows = [
        ("episodes", f"{result['episodes']:,}"),
        ("frames", f"{result['frames']:,}, {result['fps']:g} a second"),
        ("cameras", ", ".join(map(code, reader.cameras))),
        *((name, f"{size} numbers") for name, size in _sizes(reader) if size),
    ]
    use = (
        "## Use\n\n```python\nfrom lerobot.datasets.lerobot_dataset import LeRobotDataset\n\n"
        'dataset = LeRobotDataset("user/name", root="this/folder")\n```'
    )
    made = (
        f"Episodes of {code(reader.dataset)} as a LeRobot v3.0 dataset, written by `jobs/export.py`. Videos are those "
        "of the dataset, packet for packet; embeddings of captions and latents are not part of it."
    )
    return hub_card(front, "Robot episodes", made, table(("", ""), rows), use, NO_LICENCE)
