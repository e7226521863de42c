"""What an evaluation leaves: one Parquet file an episode, a row for each task of it, and the summary of all rows.

<output>/evaluation.json               what was asked for, and what the episodes depend on
<output>/episodes/<number:06d>.parquet  written when the episode ends: what is there is done
<output>/videos/<number:06d>.mp4
<output>/summary.json                  success by task and group, with Wilson's 95 % intervals
<output>/chains.json                   CALVIN: how many tasks of each chain were solved
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UsageError
from schemas.parquet_memory import read_parquet
from schemas.storage import in_memory, join, list_files, read_bytes, write_bytes
from vpp.sim.intervals import wilson

EVALUATION, SUMMARY = "evaluation.json", "summary.json"
_EPISODES, _SUFFIX = "episodes", ".parquet"
_RETRY_S = 300.0

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("position", pa.int32()),
        ("task", pa.string()),
        ("group", pa.string()),
        ("instruction", pa.string()),
        ("seed", pa.int64()),
        ("success", pa.bool_()),
        ("num_steps", pa.int32()),
        ("seconds", pa.float64()),
        ("attempts", pa.int32()),
        ("reason", pa.string()),
        ("video", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """A task of an episode.

    Attributes:
        number: Of the episode.
        position: Place of the task in the episode; 0 where an episode has one.
        task: Its name.
        group: How the benchmark sorts it; None where it does not.
        instruction: What the policy was told.
        seed: Of the episode.
        success: Whether it was solved; False where it could not be run.
        num_steps: Actions that were executed.
        seconds: By the clock, waiting for the policy included.
        attempts: How often the episode was begun in the run that ended it.
        reason: Why it could not be run; None where it was.
        video: Path relative to the output; None without.
    """

    number: int
    position: int
    task: str
    group: str | None
    instruction: str
    seed: int
    success: bool
    num_steps: int
    seconds: float
    attempts: int
    reason: str | None
    video: str | None


def episode_path(number: int) -> str:
    """Relative path of an episode's rows.

    >>> episode_path(7)
    'episodes/000007.parquet'
    """
    return f"{_EPISODES}/{number:06d}{_SUFFIX}"


def video_path(number: int) -> str:
    """Relative path of an episode's video."""
    return f"videos/{number:06d}.mp4"


def write_rows(output: str, rows: Sequence[Row]) -> None:
    """Writes the rows of one episode."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA)
    data = in_memory(lambda handle: pq.write_table(table, handle))
    write_bytes(join(output, episode_path(rows[0].number)), data, _RETRY_S)


def finished_episodes(output: str) -> set[int]:
    """Numbers of the episodes that are there."""
    names = list_files(join(output, _EPISODES), _SUFFIX)
    return {int(number) for name in names if (number := name.removesuffix(_SUFFIX)).isdecimal()}


def read_rows(output: str, numbers: Iterable[int]) -> list[Row]:
    """Rows of episodes, in their order."""
    rows: list[Row] = []
    for number in sorted(numbers):
        url = join(output, episode_path(number))
        table = read_parquet(read_bytes(url), f"rows {url}", SCHEMA.names)
        if not table.schema.equals(SCHEMA):
            raise UsageError(f"rows {url}: expected the columns of jobs/evaluate.py, found others; remove the file")
        rows += [Row(**values) for values in table.to_pylist()]
    return rows


def summarise(rows: Sequence[Row], tasks: Sequence[str]) -> dict[str, Any]:
    """Success by task and group, and what all took.

    The mean is that of the rates of the tasks that were begun, each as heavy as another. What could not be run counts
    as not solved, and is told. Seconds are those of all episodes, added up.
    """
    success = {task: _rate(row.success for row in rows if row.task == task) for task in tasks}
    success = {task: rate for task, rate in success.items() if rate["n"]}
    groups = dict.fromkeys(row.group for row in rows if row.group)
    rates = [rate["rate"] for rate in success.values()]
    return {
        "success": success,
        "groups": {group: _rate(row.success for row in rows if row.group == group) for group in groups},
        "mean": sum(rates) / len(rates) if rates else None,
        "num_episodes": len({row.number for row in rows}),
        "num_not_run": len({row.number for row in rows if row.reason}),
        "seconds": round(sum(row.seconds for row in rows), 3),
    }


def _rate(outcomes: Iterable[bool]) -> dict[str, Any]:
    known = list(outcomes)
    n, k = len(known), sum(known)
    low, high = wilson(k, n)
    return {"n": n, "k": k, "rate": k / n if n else None, "low": low, "high": high}


def write_json(url: str, values: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes values for people and programs."""
    write_bytes(url, (json.dumps(values, indent=1) + "\n").encode(), _RETRY_S)
