"""Without a display EGL renders, else OSMesa, else the user is told what to install."""

from __future__ import annotations

import ctypes

import pytest

from schemas.errors import UsageError
from vpp.sim import headless
from vpp.sim.headless import renderer


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What is installed."""
    installed = {"egl": True, "osmesa": True}
    monkeypatch.setattr(headless, "egl_works", lambda: installed["egl"])
    monkeypatch.setattr(headless, "osmesa_works", lambda: installed["osmesa"])
    return installed


def test_egl_comes_before_osmesa(works: dict[str, bool]) -> None:
    assert renderer({}) == "egl"
    works["egl"] = False
    assert renderer({}) == "osmesa"


def test_a_display_and_other_wishes_are_left_to_mujoco(works: dict[str, bool]) -> None:
    works.update(egl=False, osmesa=False)
    assert renderer({"DISPLAY": ":0"}) == renderer({"WAYLAND_DISPLAY": "wayland-0"}) == ""
    assert renderer({"MUJOCO_GL": "glfw"}) == ""


def test_what_mujoco_gl_names_is_taken_where_it_works(works: dict[str, bool]) -> None:
    assert renderer({"MUJOCO_GL": "OSMesa", "DISPLAY": ":0"}) == "osmesa"
    works["osmesa"] = False
    with pytest.raises(UsageError, match=r"as MUJOCO_GL says.* package libosmesa6$"):
        renderer({"MUJOCO_GL": "osmesa"})


def test_with_neither_the_packages_are_named_in_one_line(works: dict[str, bool]) -> None:
    works.update(egl=False, osmesa=False)
    with pytest.raises(UsageError, match="install the Debian package libegl1 or libosmesa6") as told:
        renderer({})
    assert "\n" not in str(told.value)


def test_a_missing_library_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(headless.ctypes, "CDLL", absent)
    assert not headless.egl_works()
    assert not headless.osmesa_works()
    monkeypatch.setattr(headless.ctypes, "CDLL", lambda name: object())  # another library of that name
    assert not headless.egl_works()
    assert not headless.osmesa_works()
