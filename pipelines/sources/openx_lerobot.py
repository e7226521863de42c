"""LeRobot datasets, v2.0 and v2.1 (one file an episode) and v3.0 (many episodes a file), listed from `meta/` alone.

Real copies deviate: `meta` lists episodes that were not downloaded, paths differ from those in `info.json`, codecs
differ, the task's text stands in an index column. What is missing becomes a row; what lies under another path is
taken if its name tells the camera and the episode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from pipelines.sources.lerobot_files import LeRobotFiles
from pipelines.sources.lerobot_info import LeRobotInfo
from pipelines.sources.lerobot_meta import LeRobotMeta, episode_number, num_frames
from pipelines.sources.lerobot_tables import read_numbers, read_pictures
from pipelines.sources.source import NumberedFrame, Trajectory
from pipelines.video_file import read_frames
from schemas.episode import Episode, LeftOut, Segment
from schemas.errors import DataError, UsageError
from schemas.shard import camera_name
from schemas.storage import join, join_inside


class OpenXLeRobot:
    """Implements `pipelines.sources.source.Source`.

    Args:
        dataset: The user's name for it.
        url: The folder with `meta/`, `data/` and `videos/`.
        cameras: Image keys, or their last component, separated by commas; all by default, depth maps never.
        split: Splits of `info.json` to take, separated by commas; all by default.
        task_key: Column of an episode's row in `meta` that holds its tasks: texts, or numbers of the table of tasks.
        action: Column of the actions.
        state: Column of the proprioception; by default `observation.state` where the set has it.
    """

    kind: ClassVar[str] = "openx-lerobot"

    def __init__(
        self,
        dataset: str,
        url: str,
        cameras: str = "",
        split: str = "",
        task_key: str = "tasks",
        action: str = "",
        state: str = "",
    ) -> None:
        self._where, self._url = f"--sources {dataset}", url
        self._info = LeRobotInfo(self._where, url)
        self._meta = LeRobotMeta(self._where, url, self._info, task_key)
        self._wanted_cameras = cameras.split(",") if cameras else []
        self._wanted_splits = split.split(",") if split else []
        self._action_option, self._state_option = action, state

    def parts(self) -> list[str]:
        """Stretches of the list of episodes. See `LeRobotMeta.parts`."""
        unknown = [name for name in self._wanted_splits if name not in self._info.splits]
        if unknown:
            found = ", ".join(self._info.splits) or "none"
            raise UsageError(f"{self._where}: split: expected {', '.join(unknown)} in info.json, found {found}")
        for name in filter(None, (self._action_option, self._state_option)):
            if name not in self._info.features:
                found = ", ".join(self._info.features)
                raise UsageError(f"{self._where}: expected a column {name} in info.json, found {found}")
        _ = self._cameras
        return self._meta.parts()

    def list_part(self, part: str) -> Iterator[Episode | LeftOut]:
        """Lists some episodes."""
        if self._info.depth_keys and self._meta.is_first(part):
            yield from self._depth_maps()
        source_url = join(self._url, part if self._info.is_v3 else "meta/episodes.jsonl")
        seen: set[int] = set()
        for row in self._meta.rows(part):
            episode_id = split = ""
            try:
                if isinstance(row, DataError):
                    raise row
                number = episode_number(row)
                episode_id, split = f"{number:06d}", self._info.split_of(number)
                if self._wanted_splits and split not in self._wanted_splits:
                    continue
                if number in seen:
                    raise DataError("duplicate_episode", f"expected one row an episode, found two of {number}")
                seen.add(number)
                yield self._episode(row, number, split)
            except DataError as error:
                detail = error.detail if self._url in error.detail else f"{error.detail} in {source_url}"
                yield LeftOut("rejected", error.reason, detail, episode_id, split=split, source_url=source_url)

    def frames(self, episode: Episode, camera: str, indices: Sequence[int]) -> Iterator[NumberedFrame]:
        """Reads frames from the episode's stretch of its video, or from pictures in the table."""
        if indices and indices[-1] >= episode.num_frames:  # in a shared video, the next episode begins there
            found = f"found {episode.num_frames} in episode {episode.episode_id} of {self._url}"
            raise DataError("frame_out_of_range", f"expected frame {indices[-1]}, {found}")
        video = episode.locator["videos"].get(camera)
        if video is None:
            key, number = self._info.cameras[camera], self._number_in_file(episode)
            yield from read_pictures(self._url, episode.locator["data"], key, number, indices)
        else:
            first = int(video["first_frame"])
            for index, frame in read_frames(join_inside(self._url, video["path"]), [first + i for i in indices]):
                yield index - first, frame

    def trajectory(self, episode: Episode, start: int, end: int) -> Trajectory | None:
        """Reads the episode's rows of the action and state columns."""
        if not episode.action_dim:
            return None
        url, columns = join_inside(self._url, episode.locator["data"]), [self._action, *self._state]
        actions, *states = read_numbers(url, columns, self._number_in_file(episode), start, end, episode.num_frames)
        if actions.shape[1] != episode.action_dim:
            found = f"found {actions.shape[1]} in {url}"
            raise DataError("bad_numbers", f"expected {episode.action_dim} numbers in {self._action}, {found}")
        return Trajectory(actions, states[0] if states else None)

    def latents(self, episode: Episode, camera: str) -> np.ndarray | None:
        """LeRobot datasets bring none."""
        return None

    @cached_property
    def _files(self) -> LeRobotFiles:
        return LeRobotFiles(self._url, self._info.cameras.values())

    @property
    def _action(self) -> str:
        return self._action_option or "action"

    @property
    def _state(self) -> list[str]:
        name = self._state_option or "observation.state"
        return [name] if name in self._info.features else []

    def _number_in_file(self, episode: Episode) -> int | None:
        """v2: the file is the episode, and merged copies keep the old number in it."""
        return int(episode.locator["number"]) if self._info.is_v3 else None

    @cached_property
    def _cameras(self) -> dict[str, str]:
        """Image keys of the chosen cameras by name."""
        known = self._info.cameras
        chosen: dict[str, str] = {}
        for wanted in self._wanted_cameras or known:
            name = next((name for name, key in known.items() if wanted in (name, key)), camera_name(wanted))
            if name not in known:
                found = ", ".join(known) or "none"
                raise UsageError(f"{self._where}: cameras: expected {wanted} in info.json, found {found}")
            chosen[name] = known[name]
        if not chosen:
            raise UsageError(f"{self._where}: expected at least one camera in info.json, found none in {self._url}")
        return chosen

    def _depth_maps(self) -> Iterator[LeftOut]:
        for key in self._info.depth_keys:
            yield LeftOut(
                "filtered", "depth_camera", f"{key} holds depth maps", source_url=join(self._url, "meta/info.json")
            )

    def _episode(self, row: Mapping[str, Any], number: int, split: str) -> Episode:
        episode_id, length = f"{number:06d}", num_frames(row)
        data = self._files.find(self._meta.data_file(row))
        videos: dict[str, dict[str, Any]] = {}
        cameras, left_out = [], []
        for camera, key in self._cameras.items():
            try:
                if self._info.features[key]["dtype"] == "video":
                    path = self._files.find(self._meta.video_file(row, key))
                    videos[camera] = {"path": path, "first_frame": self._meta.first_frame(row, key)}
                cameras.append(camera)
            except DataError as error:
                detail = f"camera {camera}: {error.detail}"
                url = join(self._url, data)
                left_out.append(LeftOut("rejected", error.reason, detail, episode_id, split=split, source_url=url))
        if not cameras:
            raise DataError(left_out[0].reason, "; ".join(row.detail for row in left_out))
        source_url = join(self._url, videos[cameras[0]]["path"] if cameras[0] in videos else data)
        caption = self._meta.caption(row)
        if not caption:
            detail = f"no task in {self._url}/meta"
            left_out.append(LeftOut("filtered", "no_caption", detail, episode_id, split=split, source_url=source_url))
        return Episode(
            episode_id=episode_id,
            split=split,
            source_url=source_url,
            num_frames=length,
            fps=self._info.fps,
            cameras=tuple(cameras),
            segments=(Segment(0, length, caption),) if caption else (),
            action_dim=self._info.width(self._action),
            left_out=tuple(left_out),
            locator={"data": data, "number": number, "videos": videos},
        )
