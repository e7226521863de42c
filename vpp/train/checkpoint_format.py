"""What stands in a checkpoint's two JSON files: `state.json` and, written last, `complete.json`.

complete.json   {"format": 1, "step": .., "metrics": {name: number or null}, "files": {name: {"num_bytes", "sha256"}}}
state.json      {"format": 1, "step": .., "metrics": {..}, "state": {..}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import DataError, UsageError
from schemas.plain_json import parse_json
from schemas.storage import join

FORMAT = 1
"""Written into `complete.json` and `state.json`; a reader refuses any other."""

STATE_FILE = "state.json"
COMPLETE_FILE = "complete.json"
TENSOR_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint that is complete.

    Attributes:
        step: Optimiser steps done.
        url: Its folder.
        metrics: What was measured at this step; NaN where a value was not finite.
    """

    step: int
    url: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class StoredFile:
    """What `complete.json` says about a file."""

    num_bytes: int
    sha256: str


def completion_bytes(step: int, metrics: Mapping[str, float], files: Mapping[str, StoredFile]) -> bytes:
    """Content of `complete.json`."""
    described = {name: {"num_bytes": file.num_bytes, "sha256": file.sha256} for name, file in files.items()}
    return _json_bytes({"format": FORMAT, "step": step, "metrics": _finite_or_null(metrics), "files": described})


def state_bytes(step: int, metrics: Mapping[str, float], state: Mapping[str, Any]) -> bytes:
    """Content of `state.json`.

    Raises:
        TypeError, ValueError: If `state` holds something else than finite numbers, text, booleans, None, lists, dicts.
    """
    return _json_bytes({"format": FORMAT, "step": step, "metrics": _finite_or_null(metrics), "state": dict(state)})


def parse_completion(data: bytes, url: str, step: int) -> tuple[CheckpointInfo, dict[str, StoredFile]]:
    """What `complete.json` in the folder `url` of a step says; every field must be there.

    Raises:
        DataError: `unreadable_checkpoint` if it is not what a writer writes.
        UsageError: If it has another format.
    """
    where = join(url, COMPLETE_FILE)
    value = _parse_object(data, where)
    try:
        files = {str(name): StoredFile(int(x["num_bytes"]), str(x["sha256"])) for name, x in value["files"].items()}
        stored_step, metrics = int(value["step"]), _or_nan(value["metrics"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise unreadable(f"expected step, metrics and files in {where}, found: {error!r}") from error
    if stored_step != step or STATE_FILE not in files or any("/" in name or "\0" in name for name in files):
        raise unreadable(f"expected step {step} and {STATE_FILE} in {where}, found step {stored_step}, {list(files)}")
    return CheckpointInfo(step, url, metrics), files


def parse_state(data: bytes, info: CheckpointInfo) -> dict[str, Any]:
    """The run's plain values from `state.json`, which must agree with `complete.json`.

    Raises:
        DataError: `unreadable_checkpoint` if it does not.
        UsageError: If it has another format.
    """
    where = join(info.url, STATE_FILE)
    value = _parse_object(data, where)
    if value.get("step") != info.step or value.get("metrics") != _finite_or_null(info.metrics):
        raise unreadable(f"expected step and metrics of {where} in {COMPLETE_FILE} too, found {info}")
    if not isinstance(value.get("state"), dict):
        raise unreadable(f"expected an object as state in {where}, found {type(value.get('state')).__name__}")
    return dict(value["state"])


def unreadable(detail: str) -> DataError:
    """The error for a checkpoint that differs from what was written."""
    return DataError("unreadable_checkpoint", detail)


def _parse_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = parse_json(data)
    except ValueError as error:
        raise unreadable(f"expected JSON in {where}, found: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("format"), int):
        raise unreadable(f"expected an object with a format in {where}, found {str(value)[:80]!r}")
    if value["format"] != FORMAT:
        raise UsageError(
            f"expected checkpoint format {FORMAT} in {where}, found {value['format']}; "
            "read it with the version that wrote it"
        )
    return value


def _json_bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _finite_or_null(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN, and a run that diverged must be stored too."""
    return {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}


def _or_nan(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {str(name): math.nan if value is None else float(value) for name, value in metrics.items()}
