"""What `meta/info.json` of a LeRobot dataset says, v2.0 to v3.0: features, cameras, splits, path templates."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from schemas.errors import UsageError
from schemas.plain_json import parse_json
from schemas.shard import camera_name
from schemas.storage import join, read_bytes


class LeRobotInfo:
    """Reads `meta/info.json`, once.

    Args:
        where: How a message to the user begins, such as `--sources NAME`.
        url: The dataset.
    """

    def __init__(self, where: str, url: str) -> None:
        self._where, self._url = where, url

    @cached_property
    def _content(self) -> dict[str, Any]:
        url = join(self._url, "meta", "info.json")
        where = f"{self._where}: {url}"
        try:
            content: dict[str, Any] = parse_json(read_bytes(url))
            version, features = str(content["codebase_version"]), content["features"]
            content["fps"], content["chunks_size"] = float(content["fps"]), int(content.get("chunks_size") or 1000)
            typed = all(isinstance(feature["dtype"], str) for feature in features.values())
        except FileNotFoundError as error:
            raise UsageError(f"{where}: expected the description of a LeRobot dataset, found no such file") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UsageError(f"{where}: expected codebase_version, fps and features, found {error!r}") from error
        if not typed or not 0 < content["fps"] < math.inf or content["chunks_size"] < 1:
            raise UsageError(f"{where}: expected fps and chunks_size above 0 and a dtype for each feature")
        if not re.match(r"v?[23]\.", version):
            raise UsageError(f"{where}: expected LeRobot v2.0 to v3.0, found codebase_version {version}")
        return content

    @property
    def features(self) -> Mapping[str, Mapping[str, Any]]:
        """What is said of each column and video."""
        features: dict[str, dict[str, Any]] = self._content["features"]
        return features

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self._content["fps"])

    @property
    def is_v3(self) -> bool:
        """Whether several episodes share a file."""
        return str(self._content["codebase_version"]).lstrip("v").startswith("3")

    @property
    def chunks_size(self) -> int:
        """Episodes (v2) or files (v3) in a folder."""
        return int(self._content["chunks_size"])

    def template(self, name: str) -> object:
        """`data_path` or `video_path`, unchecked."""
        return self._content.get(name)

    def width(self, column: str) -> int:
        """Number of values that a column has in each row, 0 if there is no such column."""
        if column not in self.features:
            return 0
        try:
            return math.prod(int(size) for size in self.features[column]["shape"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"{self._where}: expected a shape of {column} in meta/info.json, {error!r}") from error

    @cached_property
    def cameras(self) -> dict[str, str]:
        """Image keys by camera name, depth maps left out: the key's last component, or all of it where two agree."""
        keys = sorted(key for key in self.features if self._is_picture(key) and key not in self.depth_keys)
        uses = Counter(camera_name(key) for key in keys)
        full = {key: camera_name(key.removeprefix("observation.images.").replace(".", "_")) for key in keys}
        return {camera_name(key) if uses[camera_name(key)] == 1 else full[key]: key for key in keys}

    @cached_property
    def depth_keys(self) -> tuple[str, ...]:
        """Image keys that hold depth, not colour."""
        return tuple(key for key, feature in self.features.items() if self._is_picture(key) and _is_depth(feature))

    def _is_picture(self, key: str) -> bool:
        return self.features[key]["dtype"] in ("video", "image")

    @cached_property
    def splits(self) -> dict[str, range]:
        """Episode numbers of each split. Splits that are no `first:end` are passed over."""
        splits = self._content.get("splits")
        matches = {
            str(name): re.fullmatch(r"(\d+):(\d+)", str(text))
            for name, text in (splits.items() if isinstance(splits, dict) else ())
        }
        return {name: range(int(match[1]), int(match[2])) for name, match in matches.items() if match}

    def split_of(self, number: int) -> str:
        """The split of an episode, empty if none is named for it."""
        return next((name for name, numbers in self.splits.items() if number in numbers), "")


def _is_depth(feature: Mapping[str, Any]) -> bool:
    places = [place for place in (feature.get("info"), feature.get("video_info")) if isinstance(place, dict)]
    return any(place.get("is_depth_map") or place.get("video.is_depth_map") for place in places)
