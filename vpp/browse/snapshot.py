"""What lies in a folder, each part of it as it was when first asked for: what a page needs is read once.

A run that goes on is seen by a new snapshot, which pages ask for with a button.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from functools import cached_property

from vpp.browse.access import Access
from vpp.browse.dataset import Dataset
from vpp.browse.not_there import NotThere
from vpp.report.evaluation_section import Evaluation, read_evaluation
from vpp.report.find_runs import Run, find_runs
from vpp.report.run_curves import TrainingLog, read_training_log


class Snapshot:
    """Runs of a folder, read on demand, from any thread.

    Args:
        folder: Folder or URL.
        access: How datasets are reached.
    """

    def __init__(self, folder: str, access: Access) -> None:
        self.folder = folder.rstrip("/") or "/"
        self.began = datetime.now(UTC)
        self._access = access
        self._lock = threading.RLock()
        self._log_lock = threading.RLock()  # of its own: while a long log is read, other pages are shown
        self._logs: dict[str, TrainingLog] = {}
        self._evaluations: dict[str, Evaluation] = {}

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.rsplit("/", 1)[-1] or self.folder

    def again(self) -> Snapshot:
        """The same folder, to be read anew."""
        return Snapshot(self.folder, self._access)

    @property
    def runs(self) -> list[Run]:
        """Everything that jobs have left there.

        Raises:
            UsageError: If there is no such folder, or a record is damaged.
        """
        with self._lock:
            return self._runs

    @cached_property
    def _runs(self) -> list[Run]:
        return find_runs(self.folder)

    @property
    def datasets(self) -> dict[str, Dataset]:
        """By path in the folder."""
        with self._lock:
            return self._datasets

    @cached_property
    def _datasets(self) -> dict[str, Dataset]:
        return {run.path: Dataset(run, self._access) for run in self._runs if run.kind == "dataset"}

    def dataset(self, path: str | None) -> Dataset:
        """A dataset; None for the first one.

        Raises:
            NotThere: If there is none of this path.
        """
        datasets = self.datasets
        chosen = next(iter(datasets), None) if path is None else path
        if chosen is None or chosen not in datasets:
            raise NotThere(f"no dataset {chosen or ''!r:.200} in {self.folder}")
        return datasets[chosen]

    def run(self, path: str) -> Run:
        """A training or an evaluation.

        Raises:
            NotThere: If there is none of this path.
        """
        found = [run for run in self.runs if run.path == path and run.kind != "dataset"]
        if not found:
            raise NotThere(f"no training or evaluation {path!r:.200} in {self.folder}")
        return found[0]

    def log(self, run: Run) -> TrainingLog:
        """What a training has logged."""
        with self._log_lock:
            if run.path not in self._logs:
                self._logs[run.path] = read_training_log(run.url)
            return self._logs[run.path]

    def evaluation(self, run: Run) -> Evaluation:
        """An evaluation's rates and films."""
        with self._log_lock:
            if run.path not in self._evaluations:
                self._evaluations[run.path] = read_evaluation(run)
            return self._evaluations[run.path]
