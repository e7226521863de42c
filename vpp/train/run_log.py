"""What a training leaves to look at: every step and its samples as Parquet, curves and pictures for TensorBoard.

`<run>/steps/<first step>.parquet` has a row a step: `step`, `loss`, `grad_norm`, `learning_rate`, and for each sample
of the global batch its id, dataset, noise level and loss. A part is written before the checkpoint that ends it, under
the name of its first step; a run that resumes from an earlier checkpoint writes the same part again. So the parts are
the record of what the model has seen.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from schemas.errors import UsageError
from schemas.storage import filesystem, in_memory, is_local, join, list_names, open_read, remove_file, write_bytes
from schemas.store_faults import retry_passing_faults

RETRY_S = 300.0
"""How long a store that is gone is asked again."""

STEP_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64()),  # counted from 0: the update that these samples made
        pa.field("loss", pa.float64()),
        pa.field("grad_norm", pa.float32()),
        pa.field("learning_rate", pa.float64()),
        pa.field("sample_ids", pa.list_(pa.string())),  # in the order of the global batch
        pa.field("datasets", pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        pa.field("sigmas", pa.list_(pa.float32())),
        pa.field("losses", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True)
class StepRecord:
    """One update of the weights."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    sample_ids: Sequence[str]
    datasets: Sequence[str]
    sigmas: np.ndarray
    losses: np.ndarray


class RunLog:
    """Collects records; rank 0 has one.

    Args:
        run_url: The run.
        first_step: The step that the training begins or resumes with; parts from here on are of a lost future.
        wandb_project: Also sends the curves to Weights & Biases; empty does not.
    """

    def __init__(self, run_url: str, first_step: int, wandb_project: str = "") -> None:
        self._steps_url = join(run_url, "steps")
        self._curves_url = join(run_url, "tensorboard")
        self._records: list[StepRecord] = []
        self._staged = None if is_local(run_url) else tempfile.mkdtemp(prefix="vpp-curves-")
        for name in retry_passing_faults(lambda: list_names(self._steps_url), f"listing {self._steps_url}", RETRY_S):
            if int(name.split(".")[0]) >= first_step:
                remove_file(join(self._steps_url, name))
        if wandb_project:
            try:
                import wandb
            except ImportError as error:
                raise UsageError(
                    "--train.wandb-project: expected the package wandb, found none; install the extra wandb"
                ) from error
            wandb.init(project=wandb_project, id=_run_id(run_url), resume="allow", sync_tensorboard=True)
        folder = self._staged or filesystem(self._curves_url)[1]
        self._curves = SummaryWriter(folder, purge_step=first_step or None)

    def add_steps(self, records: Sequence[StepRecord]) -> None:
        """Takes the records of some steps, in order."""
        self._records.extend(records)

    def add_curves(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes metrics by name, such as `train/loss`."""
        for name, value in metrics.items():
            self._curves.add_scalar(name, value, step)

    def add_video(self, step: int, name: str, gif: bytes) -> None:
        """Takes an animated GIF, which TensorBoard plays."""
        width, height = np.frombuffer(gif, "<u2", count=2, offset=6).tolist()  # GIF's logical screen
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        writer = self._curves._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def flush(self) -> None:
        """Writes what was taken: a part of the steps, and the curves."""
        if self._records:
            rows = [{field: getattr(record, field) for field in STEP_SCHEMA.names} for record in self._records]
            table = pa.Table.from_pylist(rows, STEP_SCHEMA)
            part = in_memory(lambda handle: pq.write_table(table, handle, compression="zstd"))
            write_bytes(join(self._steps_url, f"{rows[0]['step']:010}.parquet"), part, RETRY_S)
            self._records = []
        self._curves.flush()
        if self._staged:
            for name in os.listdir(self._staged):
                with open(os.path.join(self._staged, name), "rb") as events:
                    write_bytes(join(self._curves_url, name), events.read(), RETRY_S)

    def close(self) -> None:
        """Ends the curves; records since the last `flush` are of steps that no checkpoint holds, and go."""
        self._curves.close()
        if self._staged:
            shutil.rmtree(self._staged)


def read_steps(run_url: str) -> pa.Table:
    """All steps of a run, in order.

    Raises:
        FileNotFoundError: If there are none.
    """
    folder = join(run_url, "steps")
    tables = []
    for name in list_names(folder):
        with open_read(join(folder, name)) as handle:
            tables.append(pq.read_table(handle))
    if not tables:
        raise FileNotFoundError(f"no steps in {folder}")
    return pa.concat_tables(tables).sort_by("step")


def by_group(
    names: Sequence[str], groups: Sequence[Any] | np.ndarray, values: np.ndarray, prefix: str
) -> dict[str, float]:
    """Means of values by the group that each belongs to, as metrics; groups without values are left out.

    >>> by_group(["low", "high"], ["low", "low"], np.array([1.0, 3.0]), "loss/")
    {'loss/low': 2.0}
    """
    of = np.asarray(groups)
    return {f"{prefix}{name}": float(values[of == name].mean()) for name in names if (of == name).any()}


def _run_id(run_url: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in run_url)[-60:]
