"""Hostile versions of sound files, and the property that every reader has: it reads, or raises one of our errors.

The examples are the same in each run. `EFFORTS` gives a test two sizes: a quick one, and a slow one that looks further.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import VPPError

EFFORTS = pytest.mark.parametrize("effort", [20, pytest.param(200, marks=pytest.mark.slow)])
"""Number of examples."""

_EDGES = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1]
_DEEP = "[" * 5000 + "]" * 5000
_DEEP_MAP = '{"a":' * 5000 + "0" + "}" * 5000
_RAW = {"@deep@": _DEEP, "@deep map@": _DEEP_MAP, "@inf@": "1e999", "@digits@": "9" * 5000, "@long@": "9" * 400}
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, -0.0, 2**31, 2**40, 2**63, -(2**70), float("nan"),
    "", " ", "..", "../../etc/passwd", "/etc/passwd", "a/../../b", "file:///etc/passwd", "s3://x/y", "a::b", "x" * 5000,
    "\ud800", "nul\0", "<script>", "\x1b[2J", "{0.__class__}", "{a:0999999999d}",
    [], {}, [[]], [None], [[0, 1]], {"a": {}}, [{}], ["", ""], *_RAW,
]  # fmt: skip


def survives(read: Callable[[Any], object], mutants: st.SearchStrategy[Any], effort: int) -> None:
    """Checks that `read` returns or raises one of our errors for `effort` mutants."""

    @settings(max_examples=effort, suppress_health_check=list(HealthCheck))
    @given(mutants)
    def check(mutant: Any) -> None:
        told = ""
        try:
            read(mutant)
        except VPPError as error:
            told = str(error)
        assert "\n" not in told

    check()


def mutants(content: bytes) -> st.SearchStrategy[bytes]:
    """Cut, flipped, stretched and rearranged versions of a file, and some in which numbers have become huge."""
    return st.builds(_changed, st.just(content), st.lists(_change(len(content)), min_size=1, max_size=3))


def json_mutants(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON document in which a value or two have gone or become another, and cut or flipped text."""
    paths = list(_paths(document))
    replaced = st.builds(
        _replaced,
        st.just(document),
        st.lists(st.tuples(st.sampled_from(paths), st.sampled_from([*_VALUES, _GONE])), min_size=1, max_size=2),
    )
    return st.one_of(replaced, replaced, replaced, mutants(json.dumps(document).encode()))


_GONE = object()


def _change(size: int) -> st.SearchStrategy[tuple[Any, ...]]:
    place = st.integers(0, max(0, size - 1))
    near = st.integers(0, 64)
    return st.one_of(
        st.tuples(st.just("cut"), place),
        st.tuples(st.just("flip"), place, st.integers(1, 255)),
        st.tuples(
            st.just("number"), place, st.sampled_from(_EDGES), st.sampled_from((1, 2, 4, 8)),
            st.sampled_from(("little", "big")),
        ),
        st.tuples(st.just("number"), near, st.sampled_from(_EDGES), st.sampled_from((1, 2, 4)), st.just("little")),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("remove"), place, st.integers(1, 64)),
        st.tuples(st.just("repeat"), place, st.integers(1, 64), st.integers(1, 50)),
    )  # fmt: skip


def _changed(content: bytes, changes: list[tuple[Any, ...]]) -> bytes:
    for kind, place, *told in changes:
        if kind == "cut":
            content = content[:place]
        elif kind == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ told[0]]) + content[place + 1 :]
        elif kind == "number":
            number, width, order = told
            content = content[:place] + (number % 256**width).to_bytes(width, order) + content[place + width :]
        elif kind == "insert":
            content = content[:place] + told[0] + content[place:]
        elif kind == "remove":
            content = content[:place] + content[place + told[0] :]
        elif kind == "repeat":
            content = content[:place] + content[place : place + told[0]] * told[1] + content[place:]
    return content


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items)[:40]:
        yield from _paths(item, (*path, key))


def _replaced(document: Any, changes: list[tuple[tuple[Any, ...], Any]]) -> bytes:
    document = json.loads(json.dumps(document))
    for path, value in changes:
        holder: Any = {"": document}
        try:
            for key in ("", *path)[:-1]:
                holder = holder[key]
            key = path[-1] if path else ""
            if value is not _GONE:
                holder[key] = copy.deepcopy(value)  # a later change may go into it
            elif path:
                del holder[key]
            document = document if path else holder[""]
        except (KeyError, IndexError, TypeError):  # the first change took away what the second is about
            continue
    text = json.dumps(document)
    for mark, raw in _RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode()
