"""With VPP_LOG=json everything on stderr is JSON lines; without it nothing is."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

SCRIPT = """
import logging, sys, warnings
from runtime.job import run_job
from schemas.errors import UsageError
from runtime.log_lines import progress_bar

def main():
    logging.info("settings: %s", "{}")
    logging.warning("stuck", extra={"fields": {"stage": "make shards", "minutes": 10.0}})
    warnings.warn("old")
    with progress_bar("make shards", 3, "shard") as bar:
        bar.update(3)
        bar.set_postfix_str("2 written")
        bar.write("step 3: val/loss 0.5")
    print("1 shard")
    if sys.argv[1] == "mistake":
        raise UsageError("expected x, found y")
    if sys.argv[1] == "fault":
        raise RuntimeError("broken")

run_job(main)
"""


def run(tmp_path: Path, ending: str, log: str) -> tuple[int, str, list[str]]:
    script = tmp_path / "shards.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, ending], env={"VPP_LOG": log, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(("ending", "code"), [("well", 0), ("mistake", 2), ("fault", 1)])
def test_every_line_is_an_object_with_the_same_names(tmp_path: Path, ending: str, code: int) -> None:
    returned, stdout, lines = run(tmp_path, ending, "json")
    assert returned == code
    assert stdout == "1 shard\n"
    found = [json.loads(line) for line in lines]
    assert all(list(line) == ["time", "level", "job", "message", "fields"] for line in found)
    assert {line["job"] for line in found} == {"shards"}
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in found)
    by_message = {line["message"]: line for line in found}
    assert by_message["stuck"]["fields"] == {"stage": "make shards", "minutes": 10.0}
    assert by_message["stuck"]["level"] == "WARNING"
    bar = by_message["make shards: 3 of 3 shard"]["fields"]
    assert (bar["stage"], bar["n"], bar["total"], bar["postfix"]) == ("make shards", 3, 3, "2 written")
    assert by_message["step 3: val/loss 0.5"]["level"] == "INFO"
    assert any("old" in message for message in by_message)
    if ending == "mistake":
        assert by_message["error: expected x, found y"]["level"] == "ERROR"
    if ending == "fault":
        assert "RuntimeError: broken" in by_message["broken"]["fields"]["traceback"]


def test_text_is_the_default(tmp_path: Path) -> None:
    code, _, lines = run(tmp_path, "mistake", "")
    assert code == 2
    assert lines[0].endswith("INFO settings: {}")
    assert any("make shards: 100%" in line and "3/3" in line for line in lines)
    assert lines[-1] == "error: expected x, found y"


def test_another_form_is_refused(tmp_path: Path) -> None:
    code, _, lines = run(tmp_path, "well", "xml")
    assert code == 2
    assert lines == ["error: VPP_LOG: expected text or json, found 'xml'"]


def test_fields_that_json_lacks_are_told_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.log_lines import _JsonLines

    record = logging.makeLogRecord({"msg": "x", "fields": {"path": Path("/a")}})
    assert json.loads(_JsonLines("job").format(record))["fields"] == {"path": "/a"}
