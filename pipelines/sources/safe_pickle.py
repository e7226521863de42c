"""Reads the pickled objects that NumPy writes into `.npy` files, running nothing that stands in them.

The unpickler knows four names, those that a NumPy array or scalar needs, and hands out guarded stand-ins of its own
for them; numbers, strings, tuples, lists and dicts need no name. Anything else ends as a `DataError` before it is
looked up.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from schemas.errors import DataError


class _Ndarray:
    """Stands for `numpy.ndarray`, so that a pickle cannot make arrays of any size."""

    __slots__ = ()


class _Reconstruct:
    """Stands for NumPy's `_reconstruct`: an empty array, which is then filled from the pickle's own bytes."""

    __slots__ = ()

    def __call__(self, subtype: Any, shape: Any, typecode: Any) -> np.ndarray:
        if not isinstance(subtype, _Ndarray) or shape != (0,):
            raise pickle.UnpicklingError(f"an array of type {subtype!r} and shape {shape!r}")
        return np.empty(0, np.int8)


class _Dtype:
    """Stands for `numpy.dtype`, by type string only."""

    __slots__ = ()

    def __call__(self, code: Any, *flags: Any) -> np.dtype:
        if not isinstance(code, str):
            raise pickle.UnpicklingError(f"a dtype made from {type(code).__name__}")
        return np.dtype(code, *flags)


class _Scalar:
    """Stands for NumPy's `scalar`; an object scalar would be unpickled by NumPy itself."""

    __slots__ = ()

    def __call__(self, dtype: Any, content: Any) -> Any:
        if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(content, bytes):
            raise pickle.UnpicklingError("a scalar that is not a number")
        return np.frombuffer(content, dtype, count=1)[0] if dtype.itemsize else np.zeros(1, dtype)[0]


class _Latin1:
    """Stands for `_codecs.encode`, by which old protocols write bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
        return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Ndarray(),
    ("numpy", "dtype"): _Dtype(),
    ("_codecs", "encode"): _Latin1(),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED |= {(_module, "_reconstruct"): _Reconstruct(), (_module, "scalar"): _Scalar()}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return _ALLOWED[module, name]


def load_pickled_npy(content: bytes, where: str) -> Any:
    """The object in a `.npy` file that NumPy wrote with `allow_pickle`.

    Args:
        content: The file.
        where: Its name, for messages.

    Returns:
        Numbers, strings, tuples, lists, dicts and NumPy arrays; an array of no dimension is unwrapped.

    Raises:
        DataError: `unsafe_pickle` if the file asks for anything else, `decode_error` if it is no such file.
    """
    handle = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(handle)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(handle)
    except ValueError as error:
        raise DataError("decode_error", f"expected a .npy file, {str(error).splitlines()[0]} in {where}") from error
    if not dtype.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    try:
        loaded = _Unpickler(handle).load()
    except pickle.UnpicklingError as error:
        raise DataError("unsafe_pickle", f"expected numbers, strings and arrays, found {error} in {where}") from error
    except Exception as error:  # a hostile pickle can raise anything from the guarded calls; none of it is ours
        raise DataError(
            "decode_error", f"expected a pickled dict, {type(error).__name__}: {error} in {where}"
        ) from error
    if isinstance(loaded, np.ndarray) and loaded.shape == () and shape == ():
        return loaded.item()
    return loaded
