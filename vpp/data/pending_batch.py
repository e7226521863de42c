"""A batch whose samples are still on their way from the shards."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from schemas.errors import DataError


@dataclass(eq=False)
class PendingBatch:
    """A batch that threads fill.

    Attributes:
        step: The step, or -1 if the samples were asked for by their rows.
        positions: Each sample's place in the global batch, int64 `[b]`.
        rows: Each sample's row in the index, int64 `[b]`.
        pin_memory: Whether the tensors lie in page-locked memory.
        per_sample: How many entries a sample has in a tensor where these are not one, by the tensor's name.
        futures: What fills it.
        tensors: What is there, by name.
    """

    step: int
    positions: np.ndarray
    rows: np.ndarray
    pin_memory: bool
    per_sample: Mapping[str, int] = field(default_factory=dict)
    futures: list[Future[None]] = field(default_factory=list)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    _views: dict[str, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Makes the tensor that takes something of all samples, `[b * per_sample, *shape]`.

        NumPy's memory comes from malloc's heap, which gives a freed batch's pages to the next: on a CPU new pages cost
        more than copying into them. Page-locked memory is kept by PyTorch.
        """
        full = (len(self.rows) * self.per_sample.get(name, 1), *shape)
        if self.pin_memory:
            torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype
            self.tensors[name] = torch.empty(full, dtype=torch_dtype, pin_memory=True)
        else:
            self.tensors[name] = torch.from_numpy(np.empty(full, dtype))
        self._views[name] = self.tensors[name].numpy()

    def put(self, name: str, place: int, values: np.ndarray) -> None:
        """Copies what was read of one sample to its place.

        Args:
            name: The tensor's name.
            place: The place in it.
            values: uint8, float16 or float32.

        Raises:
            DataError: `unequal_shapes` if a sample before had another shape.
        """
        with self._lock:
            if name not in self._views:
                self.allocate(name, values.shape, values.dtype)
        view = self._views[name]
        if view.shape[1:] != values.shape:
            expected = f"expected {name} of shape {list(view.shape[1:])} as in the samples before"
            raise DataError("unequal_shapes", f"{expected}, found {list(values.shape)}")
        np.copyto(view[place], values)  # lets other threads run meanwhile

    def wait(self) -> None:
        """Waits until all samples are there.

        Raises:
            Exception: What a thread raised.
        """
        for future in self.futures:
            future.result()
