"""Settings of a job: a frozen dataclass, filled from `vpp.yaml`, then from the command line.

One file configures all jobs of a run: each job reads its own section of `vpp.yaml` in the working directory (or of
the file named by `--config`). What the command line says wins.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import subprocess
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from schemas.errors import UsageError
from schemas.plain_yaml import parse_yaml
from schemas.storage import check_no_credentials

CONFIG_FILE = "vpp.yaml"

_S = TypeVar("_S")


def load_settings(
    settings_class: type[_S],
    section: str,
    argv: Sequence[str] | None = None,
    defaults_for: Callable[[_S], _S] | None = None,
) -> _S:
    """Resolves a job's settings.

    Args:
        settings_class: A frozen dataclass whose fields all have a default; what must be given has an empty one, and
            the job checks it.
        section: The job's section of the file.
        argv: The command line without the program's name; `sys.argv[1:]` by default.
        defaults_for: The defaults that follow from what the user has chosen, such as a preset.

    Raises:
        UsageError: If the file is missing though named, is not YAML, or has a name that the settings do not have; or if
            a setting holds credentials.
        SystemExit: With code 2 if the command line is wrong, with 0 after `--help`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    config_file = _take_option(arguments, "--config")
    settings = _parse(settings_class, section, arguments, config_file, settings_class())
    if defaults_for is not None:
        settings = _parse(settings_class, section, arguments, config_file, defaults_for(settings))
    _check_no_credentials(to_mapping(settings), section)
    return settings


def _check_no_credentials(value: Any, where: str) -> None:
    """Settings are logged and stored: no text in them may be a URL with a password.

    Raises:
        UsageError: Naming the setting, without its value.
    """
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _check_no_credentials(item, f"{where}.{name}")
    if isinstance(value, str):
        try:
            check_no_credentials(value)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None


def _parse(settings_class: type[_S], section: str, arguments: list[str], config_file: str | None, default: _S) -> _S:
    default = _from_file(default, section, config_file)
    try:
        return tyro.cli(settings_class, default=default, args=arguments, prog=f"jobs/{section}.py")
    except ValueError as error:  # raised by a `__post_init__` that checks a value
        raise UsageError(str(error)) from error


def _take_option(arguments: list[str], name: str) -> str | None:
    """Removes `name VALUE` or `name=VALUE` from the arguments and returns the value."""
    for position, argument in enumerate(arguments):
        if argument == name:
            if position + 1 == len(arguments):
                raise UsageError(f"{name}: expected a path after it, found nothing")
            value = arguments[position + 1]
            del arguments[position : position + 2]
            return value
        if argument.startswith(f"{name}="):
            del arguments[position]
            return argument.partition("=")[2]
    return None


def _from_file(default: _S, section: str, config_file: str | None) -> _S:
    path = Path(config_file or CONFIG_FILE)
    if not path.is_file():
        if config_file:
            raise UsageError(f"--config {config_file}: no such file")
        return default
    try:
        content = parse_yaml(path.read_bytes()) or {}
    except ValueError as error:
        raise UsageError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected one section a job, found {type(content).__name__}")
    misspelt = difflib.get_close_matches(section, map(str, content), n=1)
    if section not in content and misspelt:
        raise UsageError(f"{path}: unknown section {misspelt[0]!r}; this job reads {section!r}")
    values = content.get(section)
    return from_mapping(type(default), {} if values is None else values, f"{path}: {section}", default)


def from_mapping(settings_class: type[_S], values: Any, where: str, default: _S | None = None) -> _S:
    """Makes a settings dataclass from nested mappings, refusing names it does not have.

    Args:
        settings_class: What to make.
        values: By name.
        where: Where they come from, for the message.
        default: What the values are laid over; the class's own defaults otherwise.

    Raises:
        UsageError: Naming the place, what was expected and what was found.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected settings by name, found {type(values).__name__}")
    hints = typing.get_type_hints(settings_class)
    fields = [field.name for field in dataclasses.fields(settings_class)]  # type: ignore[arg-type]
    unknown = sorted(map(str, set(values) - set(fields)))
    if unknown:
        raise UsageError(f"{where}: unknown setting {', '.join(unknown):.200}; known: {', '.join(fields)}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            value = from_mapping(hint, value, f"{where}.{name}", getattr(default, name, None))
        elif isinstance(value, list):
            value = tuple(value)
        _check_type(hint, value, f"{where}.{name}")
        arguments[name] = value
    try:
        return settings_class(**arguments) if default is None else dataclasses.replace(default, **arguments)  # type: ignore[type-var]
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def _check_type(hint: Any, value: Any, where: str) -> None:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise UsageError(
                f"{where}: expected one of {', '.join(map(str, typing.get_args(hint)))}, found {value!r:.200}"
            )
        return
    if origin is tuple:
        of_items = typing.get_args(hint)
        is_of_any_length = of_items[-1] is Ellipsis
        for number, item in enumerate(value if isinstance(value, tuple) else ()):
            _check_type(of_items[0 if is_of_any_length or number >= len(of_items) else number], item, where)
        matches = isinstance(value, tuple) and (is_of_any_length or len(value) == len(of_items))
    elif isinstance(hint, type):
        wanted: Any = (int, float) if hint is float else hint
        matches = isinstance(value, wanted) and not (isinstance(value, bool) and hint is not bool)
    else:  # a union such as `int | None`
        options = [option for option in typing.get_args(hint) if isinstance(option, type)]
        matches = not options or isinstance(value, tuple(options))
    if not matches:
        expected = _list_name(hint) if origin is tuple else getattr(hint, "__name__", hint)
        raise UsageError(f"{where}: expected {expected}, found {value!r:.200}")


def _list_name(hint: Any) -> str:
    of_items = typing.get_args(hint)
    return "a list" if of_items[-1] is Ellipsis else f"a list of {len(of_items)}"


def to_mapping(settings: Any) -> dict[str, Any]:
    """Settings as plain values, for JSON or YAML."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(settings))))


def commit() -> str:
    """The commit of the project that runs, `-dirty` with local changes, or `unknown` outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--match="],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.strip()
