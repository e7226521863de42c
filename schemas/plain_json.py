"""Parses JSON that strangers wrote: whatever is wrong with it is a `ValueError`, and nothing is nested deeply.

A few bytes of deep nesting end Python's stack, here or where the value is shown in a message, and an incremental parser
keeps the path of every open level.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

MOST_LEVELS = 100
"""How deep values may be nested; a `features.json` of Open-X has 25 levels."""

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(content: bytes | str) -> Any:
    """The value that a JSON document holds.

    Raises:
        ValueError: If it is no JSON, or nested more than `MOST_LEVELS` deep.

    >>> parse_json(b'{"a": [1]}')
    {'a': [1]}
    """
    DepthWatch().see(content.encode(errors="replace") if isinstance(content, str) else content)
    try:
        return json.loads(content)
    except RecursionError as error:  # UTF-16, in which no bracket was seen
        raise ValueError("values nested too deeply") from error


class DepthWatch:
    """Follows how deep the values of a JSON text are nested, piece by piece."""

    def __init__(self) -> None:
        self._depth, self._is_in_string, self._half_escape = 0, False, b""

    def see(self, content: bytes) -> None:
        """Takes the next piece of the text, in UTF-8.

        Raises:
            ValueError: If a value in it is nested too deeply.
        """
        brackets = np.frombuffer(self._brackets(content), np.uint8)
        if len(brackets):
            depths = self._depth + np.cumsum((brackets & 2).astype(np.int64) - 1)  # only "[" and "{" have this bit
            if int(depths.max()) > MOST_LEVELS:
                raise ValueError(f"values nested more than {MOST_LEVELS} deep")
            self._depth = int(depths[-1])

    def _brackets(self, content: bytes) -> bytes:
        """The brackets outside of strings."""
        text = self._half_escape + content
        self._half_escape = b""
        if b"\\" in text:
            if (len(text) - len(text.rstrip(b"\\"))) % 2:
                text, self._half_escape = text[:-1], b"\\"
            text = _ESCAPE.sub(b"", text)
        pieces = text.split(b'"')
        outside = b"".join(pieces[int(self._is_in_string) :: 2])
        self._is_in_string ^= len(pieces) % 2 == 0
        return outside.translate(None, _NO_BRACKETS)
