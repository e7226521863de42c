"""Opens CALVIN's official simulator, `calvin_env`, which users install beside the project; see docs/evaluation.md.

Environment D with the cameras of the data set, drawn through EGL: PyBullet's renderer on the processor makes other
pictures. The judge of tasks is the simulator's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from vpp.sim.headless import egl_works

_CONFIGURATION = "config_data_collection"
_OVERRIDES = (
    "scene=calvin_scene_D",
    "cameras=static_and_gripper",
    "use_vr=false",
    "env.show_gui=false",
    "env.use_egl=true",
    "env.use_scene_info=true",  # the judge reads it
)
_NEEDED = {  # what calvin_env imports, without its tactile sensor: module and package
    "pybullet": "pybullet",
    "hydra": "hydra-core",
    "hydra_plugins.hydra_colorlog": "hydra-colorlog",
    "git": "gitpython",
    "gym": "gym",
    "quaternion": "numpy-quaternion",
    "cv2": "opencv-python-headless",
    "scipy": "scipy",
}


def check_installed() -> Path:
    """Where the configuration of the simulator lies; imports nothing.

    Raises:
        UsageError: If the simulator, something it needs, or a way to render is missing.
    """
    specification = importlib.util.find_spec("calvin_env")
    if specification is None or specification.origin is None:
        raise UsageError(
            "--benchmark calvin: expected the simulator calvin_env, found no such package; clone mees/calvin_env "
            "from GitHub and put the clone on PYTHONPATH, as docs/evaluation.md shows"
        )
    configuration = Path(specification.origin).parents[1] / "conf"
    if not (configuration / f"{_CONFIGURATION}.yaml").is_file():
        raise UsageError(
            f"--benchmark calvin: expected {_CONFIGURATION}.yaml in {configuration}, found none; use a clone of "
            "mees/calvin_env, since an installed copy lacks its configuration and models"
        )
    missing = [package for module, package in _NEEDED.items() if not _is_there(module)]
    if missing:
        raise UsageError(
            f"--benchmark calvin: expected what calvin_env needs, found no {', '.join(missing)}; "
            'install them with pip install -e ".[calvin]"'
        )
    if not egl_works():
        raise UsageError(
            "--benchmark calvin: expected EGL to render, found none that works; install the Debian package libegl1"
        )
    return configuration


def open_world() -> tuple[Any, Any]:
    """A `PlayTableSimEnv` and its judge, `Tasks`. One a process: parts of `calvin_env` do not tell clients apart.

    Raises:
        UsageError: As `check_installed`.
    """
    configuration = check_installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old packages, for calvin_env's authors
        play_table: Any = importlib.import_module("calvin_env.envs.play_table_env")
        play_table.get_git_commit_hash = lambda path: "unknown"  # for its log; it fails outside a Git checkout
        hydra: Any = importlib.import_module("hydra")
        with hydra.initialize_config_dir(str(configuration.resolve()), version_base=None):
            settings = hydra.compose(_CONFIGURATION, overrides=list(_OVERRIDES))
        return hydra.utils.instantiate(settings.env), hydra.utils.instantiate(settings.tasks)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the module it is in
        return False
