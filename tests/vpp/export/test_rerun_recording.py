"""An episode as a recording for rerun's viewer."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stored_episodes import LENGTHS, write_stored_episodes

from schemas.errors import UsageError
from vpp.export.export_job import ExportSettings, export


def test_a_recording_holds_the_views_the_numbers_and_the_caption(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed (the extra rerun)")
    write_stored_episodes(str(tmp_path / "data"))
    output = tmp_path / "episode.rrd"
    settings = ExportSettings(
        data=str(tmp_path / "data"), output=str(output), format="rerun", episode=f"blocks{2:015x}"
    )
    assert export(settings)["frames"] == LENGTHS[2]
    command = [sys.executable, "-m", "rerun", "rrd", "print", "-v", str(output)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name in ("/cameras/front", "/cameras/wrist", "/action", "/state", "/caption"):
        assert name in printed


def test_an_episode_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_stored_episodes(str(tmp_path / "data"), lengths=(2,))
    settings = ExportSettings(
        data=str(tmp_path / "data"), output=str(tmp_path / "e.rrd"), format="rerun", episode="other"
    )
    with pytest.raises(UsageError, match="expected an id of an episode of blocks, found 'other'"):
        export(settings)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stored_episodes(str(tmp_path / "data"), lengths=(2,))
    found = builtins.__import__

    def without_rerun(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "rerun":
            raise ImportError(name)
        return found(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_rerun)
    with pytest.raises(UsageError, match="install the extra rerun"):
        export(ExportSettings(data=str(tmp_path / "data"), output=str(tmp_path / "e.rrd"), format="rerun"))
