"""The stream holds the library's bytes, and what the library would refuse to write."""

from __future__ import annotations

import io

import pytest
import safetensors.torch
import torch

from schemas.errors import UsageError
from vpp.train.safetensors_stream import write_safetensors

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def stream(tensors: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    write_safetensors(buffer, tensors)
    return buffer.getvalue()


def test_bytes_are_those_of_the_library() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{shape}.{dtype}": (torch.rand(shape, generator=generator) * 100).to(dtype)
        for dtype in DTYPES
        for shape in [(), (0, 3), (5,), (2, 3, 4)]
    }
    tensors['a "quoted" näme'] = torch.zeros(3)
    assert stream(tensors) == safetensors.torch.save(tensors)
    assert stream({}) == safetensors.torch.save({})


def test_strided_and_shared_tensors_are_written_in_full() -> None:
    base = torch.arange(12.0).view(3, 4)
    tensors = {"base": base, "same": base, "transposed": base.T, "slice": base[1:, ::2], "view": base.view(4, 3)}
    read = safetensors.torch.load(stream(tensors))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_tensor_of_several_pieces_reads_back() -> None:
    tensor = torch.arange(5 << 20, dtype=torch.int64)  # 40 MiB
    assert torch.equal(safetensors.torch.load(stream({"long": tensor}))["long"], tensor)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex128), torch.zeros(2, device="meta"), torch.eye(2).to_sparse()]
)
def test_what_the_format_cannot_hold_is_refused_by_name(tensor: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"layer\.weight"):
        stream({"layer.weight": tensor})
