"""Exports episodes: settings, checks, and which format does what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from schemas.errors import UsageError
from vpp.data.episode_reader import EpisodeReader
from vpp.export.lerobot import export_lerobot
from vpp.export.rerun_recording import write_recording


@dataclass(frozen=True)
class ExportSettings:
    """Writes episodes of a dataset in a format of others: all as a LeRobot v3.0 dataset, or one to look at in rerun.

    Videos are taken over as they are stored, without decoding and encoding them again.

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.

    Attributes:
        data: URL of a dataset with episodes: the output of jobs/preprocess.py.
        output: URL to write to: a folder for lerobot, a file such as episode.rrd for rerun.
        format: `lerobot`: all episodes, as a LeRobot v3.0 dataset. `rerun`: one of them, for rerun's viewer.
        dataset: Which of the datasets in there; not needed where there is one.
        cameras: Views to take, in this order; all by default.
        selection: Name of a selection that jobs/query.py --save wrote; all episodes by default.
        fps: Frames a second; 0 for the rate that stored videos play at, which is the source's, or 30 where that does
            not tell its own.
        episode: Of rerun: the episode's id in the manifest; the first by default.
    """

    data: str = ""
    output: str = ""
    format: Literal["lerobot", "rerun"] = "lerobot"
    dataset: str = ""
    cameras: tuple[str, ...] = ()
    selection: str = ""
    fps: float = 0.0
    episode: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.fps <= 1000:
            raise ValueError(f"--fps: expected 0 to 1000, found {self.fps}")
        if self.episode and self.format != "rerun":
            raise ValueError("--episode: expected --format rerun with it, since all episodes go into a LeRobot dataset")


def export(settings: ExportSettings) -> dict[str, Any]:
    """Runs the job; returns what was written: `dataset`, `episodes`, `frames`, `fps`.

    Raises:
        UsageError: If a setting or the dataset is wrong, or the output holds something else.
    """
    for name in ("data", "output"):
        if not getattr(settings, name):
            raise UsageError(f"--{name}: expected a folder or URL, found nothing")
    reader = EpisodeReader(settings.data, settings.dataset, settings.cameras, settings.selection)
    if settings.format == "lerobot":
        return export_lerobot(reader, settings.output, settings.fps, settings)
    episode = reader.read(reader.row_of(settings.episode) if settings.episode else 0)
    fps = write_recording(episode, settings.output, settings.fps)
    return {"dataset": reader.dataset, "episodes": 1, "frames": len(episode.actions), "fps": fps}
