"""Finds what lies in a folder: datasets, trainings and evaluations, by the files that each kind of job leaves.

A folder's name says nothing. What a run keeps inside itself, such as checkpoints and shards, is not looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from schemas.errors import UsageError
from schemas.layout import manifest_folder
from schemas.plain_json import parse_json
from schemas.shard import PRODUCTS
from schemas.storage import exists, is_dir, join, list_names, list_sizes, read_bytes
from vpp.sim.evaluation_rows import EVALUATION, SUMMARY

Kind = Literal["dataset", "stage1", "stage2", "evaluation"]

_RUN = "run.json"
_DEPTH = 2
_CONTENT = frozenset(
    (
        "checkpoints",
        "clips",
        "codec",
        "episodes",
        "model",
        "plan",
        "policy",
        "previews",
        "steps",
        "tensorboard",
        "videos",
    )
)
"""What a run keeps inside itself."""


@dataclass(frozen=True)
class Run:
    """What a job has left.

    Attributes:
        kind: Of which job.
        root: The folder of the report.
        path: Of the run in there; empty for the folder itself.
        record: What it was asked for: the content of its `summary.json` (dataset), `run.json` or `evaluation.json`.
    """

    kind: Kind
    root: str
    path: str
    record: dict[str, Any]

    @property
    def url(self) -> str:
        """Where it is."""
        return join(self.root, self.path) if self.path else self.root

    @property
    def name(self) -> str:
        """How the page calls it."""
        return self.path or self.root.rstrip("/").rsplit("/", 1)[-1]

    def inside(self, relative: str) -> str:
        """A path of the run's as one of the report's folder."""
        return f"{self.path}/{relative}" if self.path else relative


def find_runs(root: str) -> list[Run]:
    """Runs in a folder and two levels below, in the order of their paths.

    Raises:
        UsageError: If there is no such folder, or a record is no JSON.
    """
    if not exists(root):
        raise UsageError(f"{root}: expected the folder of a run, found nothing; see `make demo` in the Makefile")
    return list(_look(root, "", _DEPTH))


def _look(root: str, path: str, depth: int) -> Iterator[Run]:
    url = join(root, path) if path else root
    names, files = list_names(url), list_sizes(url)
    found: list[tuple[Kind, str]] = []
    if any(product in names and is_dir(manifest_folder(url, product)) for product in PRODUCTS):
        found.append(("dataset", SUMMARY))
    if _RUN in files:
        found.append(("stage1", _RUN))
    if EVALUATION in files:
        found.append(("evaluation", EVALUATION))
    for kind, name in found:
        record = _read(join(url, name)) if name in files else {}
        settings = record.get("settings")
        if kind == "stage1" and isinstance(settings, dict) and "video_model" in settings:
            kind = "stage2"
        yield Run(kind, root, path, record)
    if depth:
        for name in names:
            if name not in files and not name.startswith(".") and not (found and name in _CONTENT):
                yield from _look(root, f"{path}/{name}" if path else name, depth - 1)


def _read(url: str) -> dict[str, Any]:
    try:
        record = parse_json(read_bytes(url))
    except ValueError as error:
        raise UsageError(f"{url}: expected JSON, found {error}; remove the file and run its job again") from error
    return record if isinstance(record, dict) else {}
