"""Looks at a file of `torch.save` before torch does: a zip of a pickle and of raw tensors (`torch.serialization`).

`torch.load(weights_only=True)` runs no code, but makes what a few bytes ask for: a bytearray of any size, or a storage
that is compressed a thousandfold. Here the pickle may name only what a state dict is made of, and nothing may be
compressed. That a tensor shows no number a billion times is for its reader to check: only then are there shapes.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import IO

from schemas.errors import DataError

_MOST_PICKLE_BYTES = 4 << 20  # names, shapes and places of tensors: those of a thousand take some hundred kB
_TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_NAMES = {
    *(f"torch {name}Storage" for name in _TYPES),
    "collections OrderedDict",
    "torch.storage UntypedStorage",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}


def check_torch_file(handle: IO[bytes], where: str) -> None:
    """Checks what a file will make torch do. Leaves the handle at the beginning.

    Args:
        handle: The file; it can seek.
        where: Its name, for messages.

    Raises:
        DataError: `unsafe_pickle` if it asks for anything but tensors, lists and dicts, `decode_error` if it is no such
            file.
    """
    expected = f"expected a file of torch.save in {where}"
    try:
        with zipfile.ZipFile(handle) as archive:
            members = archive.infolist()
            packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise DataError("unsafe_pickle", f"{expected}, found {packed[0]!r:.100} compressed")
            if sum(member.file_size for member in members) > handle.seek(0, io.SEEK_END):
                raise DataError("unsafe_pickle", f"{expected}, found members that together are larger than the file")
            (described,) = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
            if described.file_size > _MOST_PICKLE_BYTES:
                raise DataError("unsafe_pickle", f"{expected}, found a pickle of {described.file_size} bytes")
            names = sorted(_names(archive.read(described)) - _NAMES)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file led to; it lies here, so no connection can fail
        raise DataError("decode_error", f"{expected} since torch 1.6, found {error!r:.200}") from error
    handle.seek(0)
    if names:
        raise DataError("unsafe_pickle", f"{expected} with plain tensors, found the name {names[0]:.100}")


def _names(content: bytes) -> set[str]:
    """Whatever a pickle imports, as `module name`."""
    names = set()
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("GLOBAL", "INST"):
            names.add(str(argument))
        elif operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):  # torch writes protocol 2, which has none
            names.add(operation.name)
    return names
