"""Runs whose records were changed at will: the report is written without their markup, or says in one line whose they are."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished_run import HOSTILE, write_evaluation, write_training
from hostile import EFFORTS, json_mutants, mutants, survives

from vpp.report.find_runs import find_runs
from vpp.report.page import write_report


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "run"
    write_training(root / "first", {"preset": HOSTILE, "train": {"steps": 40, "batch_size": 2}})
    write_evaluation(root / "try", {"policy": HOSTILE, "instructions": "own"}, [True, False])
    return root


class Tags(HTMLParser):
    """Collects names of elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def report(root: Path) -> None:
    page = write_report(str(root), HOSTILE, find_runs(str(root)), [])
    assert not Tags(Path(page).read_text()).found & {"script", "img", "iframe", "object", "base", "form"}


@EFFORTS
@pytest.mark.parametrize("name", ["first/run.json", "try/evaluation.json", "try/summary.json"])
def test_a_record(root: Path, name: str, effort: int) -> None:
    path = root / name
    sound = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        report(root)

    try:
        survives(read, json_mutants(json.loads(sound)), effort)
    finally:
        path.write_bytes(sound)


@EFFORTS
@pytest.mark.parametrize("name", ["first/steps", "first/tensorboard", "try/episodes"])
def test_a_table(root: Path, name: str, effort: int) -> None:
    path = sorted((root / name).iterdir())[0]
    sound = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        report(root)

    try:
        survives(read, mutants(sound), effort)
    finally:
        path.write_bytes(sound)
