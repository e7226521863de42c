"""A LeRobot v3.0 dataset of numbered frames, written with the project's own writer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from videos import numbered_frame

from vpp.sim.episode_video import EpisodeVideo
from vpp.sim.lerobot_statistics import PictureStatistics
from vpp.sim.lerobot_writer import LeRobotWriter, RecordedEpisode

FPS = 80.0
LENGTHS = (12, 7, 20)


def recorded(number: int, first: int, length: int, cameras: Sequence[str] = ("front", "wrist")) -> RecordedEpisode:
    """Frames, actions and states that show the numbers from `first` on."""
    videos, statistics = {}, {}
    for camera in cameras:
        video, summary = EpisodeVideo(FPS), PictureStatistics()
        for shown in range(first, first + length):
            video.add(numbered_frame(shown))
            summary.add(numbered_frame(shown))
        videos[camera], statistics[camera] = video.finish(), summary.finish()
    steps = np.arange(first, first + length, dtype=np.float32)[:, None]
    return RecordedEpisode(f"task {number % 2}", videos, steps * [[1, -1]], steps * [[1, 1, 1]], statistics)


def write_lerobot_v3(url: str, lengths: Sequence[int] = LENGTHS) -> str:
    """Episodes one behind another: frame `i` of all shows `i`, its action is `[i, -i]`, its state `[i, i, i]`."""
    writer, first = LeRobotWriter(url, FPS, "test", ("a", "b"), ("x", "y", "z")), 0
    for number, length in enumerate(lengths):
        writer.add(recorded(number, first, length))
        first += length
    writer.finish()
    return url
