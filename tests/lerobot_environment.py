"""An environment of its own with LeRobot from the package index, this project and its policy package installed.

As a user would make it, but for three things that a machine without a GPU has to do otherwise: the torch of this
project's environment instead of one built for CUDA; torchcodec in the last version that is built without CUDA; and
FFmpeg's libraries, which torchcodec looks for on the machine, taken from PyAV, which ships them under other names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

_OTHERWISE = {"torch": f"torch=={version('torch').partition('+')[0]}", "torchvision": "torchvision"}
_OTHERWISE |= {"torchcodec": "torchcodec==0.11.*"}
_BESIDES = (f"mujoco=={version('mujoco')}", "instant-clip-tokenizer")
"""MuJoCo as MetaWorld 3.0 can take it, which LeRobot asks for; and what the stand-in of CLIP reads with."""

_UNUSED = ("cmake", "pynput", "wandb")  # a compiler, a keyboard and a service that no test here needs

_WITHOUT_CUDA = """
import torch

if torch.version.cuda is None:  # torchvision's operators need CUDA's libraries; it only has to be importable here
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


@dataclass(frozen=True)
class LeRobotEnvironment:
    """Runs Python code where LeRobot is installed; this project's tree is not on its path.

    Attributes:
        folder: Of the environment.
    """

    folder: Path

    def run(self, code: str, *arguments: object, **variables: str) -> str:
        """Runs code with arguments; returns what it printed, of which errors are a part."""
        libraries = f"{self.folder / 'ffmpeg'}:{next(self.folder.glob('lib/*/site-packages/av.libs'))}"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"LD_LIBRARY_PATH": libraries, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
        process = subprocess.run(
            [self.folder / "bin/python", "-c", _WITHOUT_CUDA + code, *map(str, arguments)],
            cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1800,
        )  # fmt: skip
        assert process.returncode == 0, process.stdout[-5000:]
        return process.stdout


def make_environment(folder: Path) -> LeRobotEnvironment:
    """Makes it, or skips the test where the package index cannot be reached."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    _install_lerobot(folder)
    _pip(folder, "install", *_requirements(folder), *_BESIDES)
    for tree in ("", "lerobot_policy_vpp"):
        copy = folder / "source" / (tree or "project")
        names = [tree] if tree else ["schemas", "runtime", "pipelines", "vpp", "pyproject.toml", "README.md"]
        for name in names:
            _copy(ROOT / name, copy if tree else copy / name)
        _pip(folder, "install", "--no-deps", str(copy))
    _link_ffmpeg(folder)
    return LeRobotEnvironment(folder)


def _install_lerobot(folder: Path) -> None:
    process = _run_pip(folder, "install", "--no-deps", "lerobot>=0.4.4")
    if process.returncode and re.search(r"No matching distribution|connection|timed out|resolve", process.stdout, re.I):
        pytest.skip(f"the package index cannot be reached, or has no LeRobot: {process.stdout.strip()[-200:]}")
    assert process.returncode == 0, process.stdout[-5000:]


def _requirements(folder: Path) -> list[str]:
    """What LeRobot, its MetaWorld and this project ask for."""
    told = "import importlib.metadata as m; print('\\n'.join(m.requires('lerobot')))"
    printed = subprocess.run([folder / "bin/python", "-c", told], check=True, capture_output=True, text=True).stdout
    of_project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    chosen = []
    for requirement in map(Requirement, [*printed.splitlines(), *of_project]):
        extras = ("", "metaworld", "dataset", "evaluation", "av-dep")
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        if name not in (*_UNUSED, "lerobot"):
            requirement.marker = None
            chosen.append(_OTHERWISE.get(name, str(requirement)))
    return chosen


def _link_ffmpeg(folder: Path) -> None:
    """PyAV's `libavcodec-6d4e2dd1.so.61.19.100` is what others look for as `libavcodec.so.61`."""
    (folder / "ffmpeg").mkdir()
    for library in next(folder.glob("lib/*/site-packages/av.libs")).iterdir():
        found = re.fullmatch(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)[.\d]*", library.name)
        if found:
            (folder / "ffmpeg" / f"{found[1]}.so.{found[2]}").symlink_to(library)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    else:
        shutil.copy(source, target)


def _pip(folder: Path, *arguments: str) -> None:
    process = _run_pip(folder, *arguments)
    assert process.returncode == 0, process.stdout[-5000:]


def _run_pip(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", *arguments],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
