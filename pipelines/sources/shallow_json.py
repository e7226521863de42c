"""A stream of JSON for `ijson` that ends with an error where values are nested too deeply.

`ijson` keeps the path of every level that is open, so that 100 kB of `[` take gigabytes.
"""

from __future__ import annotations

from typing import IO

import ijson

from schemas.plain_json import DepthWatch


class ShallowJson:
    """A binary file to read from."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle, self._watch = handle, DepthWatch()

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            ijson.JSONError: If a value in them is nested too deeply.
        """
        content = self._handle.read(size)
        try:
            self._watch.see(content)
        except ValueError as error:
            raise ijson.JSONError(str(error)) from error
        return content
