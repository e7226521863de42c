"""jobs/browse.py: tells its address, shows pages, ends when told to; mistakes end with code 2."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from browsed import ask
from running import run, start
from small_dataset import write_part


def test_it_tells_its_address_and_ends_when_told_to(tmp_path: Path) -> None:
    write_part(str(tmp_path), "clips", "d", "000000", [{"clip_id": "x", "status": "rejected", "reason": "too_short"}])
    process = start("browse", tmp_path, "--port", 0, cwd=tmp_path)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    address = next(line for line in lines if "ready: " in line).partition("ready: ")[2].strip()
    assert "too_short" in ask(f"{address}clips?status=rejected").page.text
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "expected the folder"), (("nowhere",), "found nothing"), ((".",), "found nothing"), ((".", "--port", "-1"), "--port")],
)  # fmt: skip
def test_mistakes_end_with_code_2(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    code, output = run("browse", *arguments, cwd=tmp_path)
    assert (code, "Traceback" in output) == (2, False)
    assert told in output
