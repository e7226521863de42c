"""Writes tensors in the safetensors format, piece by piece: https://github.com/huggingface/safetensors#format.

`safetensors.torch.save_file` takes a name, writes a file of its own and renames it, refuses tensors that share memory,
and needs all of them contiguous at once. A checkpoint needs an open file, its SHA-256 without reading it again, and no
second copy in memory. The bytes are those of the library, which reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

import torch

from schemas.errors import UsageError

_PIECE_BYTES = 16 << 20  # between pieces other threads run, such as the one that trains

_DTYPES = {  # in the format's order; tensors are written from the last dtype to the first, which keeps them aligned
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}


class BinarySink(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Takes all of `data`."""
        ...


def check_storable(tensors: Mapping[str, torch.Tensor]) -> None:
    """Looks at dtypes, devices and layouts alone.

    Raises:
        UsageError: If a tensor's dtype has no place in the format or it is not a dense tensor in this machine's memory.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise UsageError(
                f"expected tensor {name!r} dense, on the CPU, with a dtype of {sorted(_DTYPES.values())}, "
                f"found {tensor.dtype}, {tensor.device}, {tensor.layout}; convert it before saving"
            )


def write_safetensors(sink: BinarySink, tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes named CPU tensors of any shape and stride; at most one of them is copied at a time.

    Tensors that share memory are each written in full.

    Raises:
        UsageError: As `check_storable`.
    """
    check_storable(tensors)
    rank = {dtype: -position for position, dtype in enumerate(_DTYPES)}
    order = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name))
    header: dict[str, object] = {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    sink.write(len(text).to_bytes(8, "little"))
    sink.write(text)
    for name in order:
        flat = tensors[name].detach().contiguous().reshape(-1).view(torch.uint8)
        data = memoryview(flat.numpy())  # type: ignore[arg-type]
        for start in range(0, len(data), _PIECE_BYTES):
            sink.write(data[start : start + _PIECE_BYTES])
