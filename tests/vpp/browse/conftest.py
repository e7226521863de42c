"""A folder that the tests only look at, and a server that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsed import browsing, write_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browsed") / "a run"
    write_folder(root)
    return root


@pytest.fixture(scope="session")
def site(folder: Path) -> Iterator[str]:
    with browsing(str(folder)) as address:
        yield address
