"""Reads an array that is held in memory in NumPy's file format (NEP 1), without copying it.

`numpy.load` copies, and reads the header as a Python literal each time, which takes longer than the copy. Arrays of
one shape have one header, so here it is read once.
"""

from __future__ import annotations

import io
from functools import lru_cache
from tokenize import TokenError

import numpy as np

from schemas.errors import DataError

_MAGIC_BYTES = 10  # magic 6, version 2, length of the header 2 (format 1.0)


def npy_view(content: memoryview) -> np.ndarray:
    """A read-only array over the bytes of an `.npy` file. Object arrays, which hold pickles, are refused.

    Raises:
        DataError: `corrupt_array` if it is no such file, or has another length than its header says.
    """
    try:
        length = _MAGIC_BYTES + int.from_bytes(content[8:10], "little")
        shape, dtype = _header(bytes(content[:length]))
        return np.frombuffer(content[length:], dtype).reshape(shape)
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        # The header is a Python literal: what `numpy.lib.format` says of a damaged one depends on where it is damaged.
        raise DataError("corrupt_array", f"expected an array in NumPy's format: {error!r:.200}") from error


@lru_cache(maxsize=64)
def _header(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    stream = io.BytesIO(header)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"found format {version[0]}.{version[1]}, expected 1.0")
    shape, is_column_major, dtype = np.lib.format.read_array_header_1_0(stream)
    if is_column_major or dtype.hasobject:
        raise ValueError(f"found {'column-major order' if is_column_major else dtype}, expected rows of numbers")
    return shape, dtype
