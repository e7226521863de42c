"""Rendering without a display: MuJoCo's EGL, else OSMesa, else a word on what to install.

MuJoCo reads MUJOCO_GL when it is imported and fails then, or at the first picture, with an error of the library's own.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

from schemas.errors import UsageError

_DEBIAN_PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6"}


def choose_renderer() -> None:
    """Sets MUJOCO_GL where it is not set and there is no display; has to come before MuJoCo is imported.

    Raises:
        UsageError: If neither library works, or the one that MUJOCO_GL names does not.
    """
    if sys.platform == "linux":
        chosen = renderer(os.environ)
        if chosen:
            os.environ["MUJOCO_GL"] = chosen


def renderer(environment: Mapping[str, str]) -> str:
    """The library to render with; empty where MuJoCo's own choice is right, which is a window on the display.

    Raises:
        UsageError: As `choose_renderer`.
    """
    wanted = environment.get("MUJOCO_GL", "").lower()
    if wanted and wanted not in _DEBIAN_PACKAGES:
        return ""
    if not wanted and (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return ""
    works = {"egl": egl_works, "osmesa": osmesa_works}
    for name in [wanted] if wanted else works:
        if works[name]():
            return name
    libraries = [wanted] if wanted else list(_DEBIAN_PACKAGES)
    install = " or ".join(_DEBIAN_PACKAGES[name] for name in libraries)
    raise UsageError(
        f"rendering: expected a display, or {' or '.join(name.upper() for name in libraries)} to render without one"
        f"{', as MUJOCO_GL says' if wanted else ''}; found none that works; install the Debian package {install}"
    )


def egl_works() -> bool:
    """Whether EGL is installed and one of its devices can be opened; Mesa counts the processor as one."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
        egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
        query = _extension(egl, "eglQueryDevicesEXT", ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        display_of = _extension(
            egl, "eglGetPlatformDisplayEXT", ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
        )
    except (OSError, AttributeError):
        return False
    devices, count = (ctypes.c_void_p * 32)(), ctypes.c_int()
    if not query or not display_of or not query(len(devices), devices, ctypes.byref(count)):
        return False
    platform_device = 0x313F  # EGL_PLATFORM_DEVICE_EXT of EGL_EXT_platform_device
    displays = [display_of(platform_device, device, None) for device in devices[: count.value]]
    return any(display and egl.eglInitialize(display, None, None) for display in displays)


def _extension(egl: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    address = egl.eglGetProcAddress(name.encode())
    return ctypes.CFUNCTYPE(result, *arguments)(address) if address else None


def osmesa_works() -> bool:
    """Whether OSMesa is installed."""
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        try:
            return hasattr(ctypes.CDLL(name), "OSMesaCreateContextExt")
        except OSError:
            continue
    return False
