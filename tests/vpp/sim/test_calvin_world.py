"""Whoever lacks a part of CALVIN's simulator is told which, and how to get it, before anything runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from schemas.errors import UsageError
from vpp.sim import calvin_world
from vpp.sim.benchmark import find_benchmark
from vpp.sim.calvin_world import check_installed

_NEEDED = ("pybullet", "hydra", "hydra_plugins", "git", "gym", "quaternion", "cv2", "scipy")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty packages where those of a clone, and those that it needs, would lie."""
    for name in ("calvin_env", *_NEEDED, "hydra_plugins/hydra_colorlog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config_data_collection.yaml").touch()
    for name in list(sys.modules):
        if name.split(".")[0] in ("calvin_env", *_NEEDED):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(calvin_world, "egl_works", lambda: True)
    return tmp_path


def test_a_clone_with_all_that_it_needs_is_found(clone: Path) -> None:
    assert check_installed() == clone / "conf"


def test_without_the_simulator_the_benchmark_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"found no such package; clone mees/calvin_env from GitHub"):
        find_benchmark("calvin")


def test_an_installed_copy_without_configuration_is_refused(clone: Path) -> None:
    (clone / "conf/config_data_collection.yaml").unlink()
    with pytest.raises(UsageError, match="use a clone of mees/calvin_env"):
        check_installed()


def test_what_the_simulator_needs_is_named_by_package(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    absent = ("pybullet", "quaternion", "hydra_plugins.hydra_colorlog")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find_spec(name))
    with pytest.raises(UsageError, match="found no pybullet, hydra-colorlog, numpy-quaternion; install"):
        check_installed()


def test_without_egl_the_debian_package_is_named(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calvin_world, "egl_works", lambda: False)
    with pytest.raises(UsageError, match="libegl1"):
        check_installed()
