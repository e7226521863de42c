"""Which kinds of source there are, and how one is named on the command line: `NAME=KIND:URL[#option=value&...]`.

The fragment holds options of that source: those of its reader, and `window.*` settings that replace the run's for
this source.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from pipelines.sources.source import Source
from pipelines.windows import WindowMode, WindowSettings
from runtime.settings import from_mapping
from schemas.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        target: Its class as `module:class`; made with `(dataset, url, **options)`.
        window_mode: The mode that suits it.
    """

    target: str
    window_mode: WindowMode


KINDS = {
    "openx-rlds": Kind("pipelines.sources.openx_rlds:OpenXRLDS", "whole"),
    "openx-lerobot": Kind("pipelines.sources.openx_lerobot:OpenXLeRobot", "sliding"),
    "calvin": Kind("pipelines.sources.calvin:Calvin", "segment"),
    "ego4d": Kind("pipelines.sources.ego4d:Ego4D", "segment"),
    "vpp-layout": Kind("pipelines.sources.vpp_layout:VPPLayout", "whole"),
}


@dataclass(frozen=True)
class SourceSpec:
    """One source of a run: enough to open it again in any worker.

    Attributes:
        dataset: The user's name for it; names its folders and stands in the manifest.
        kind: One of `KINDS`.
        url: Where it lies.
        options: Options of the reader, by name.
        window: Settings of the window that differ from the run's, by name.
    """

    dataset: str
    kind: str
    url: str
    options: tuple[tuple[str, str], ...] = ()
    window: tuple[tuple[str, str], ...] = ()


def parse_source(text: str) -> SourceSpec:
    """Reads `NAME=KIND:URL[#option=value&...]`.

    Raises:
        UsageError: If it is not of this form, or the kind is unknown.

    >>> parse_source("ego=ego4d:s3://bucket/v2#annotations=fho&window.stride=2")
    SourceSpec(dataset='ego', kind='ego4d', url='s3://bucket/v2', options=(('annotations', 'fho'),),
    window=(('stride', '2'),))
    """
    name, equals, rest = text.partition("=")
    kind, colon, location = rest.partition(":")
    url, _, fragment = location.partition("#")
    if not (equals and colon and url) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(f"--sources: expected NAME=KIND:URL (NAME of letters, digits, - and _), found {text!r}")
    if kind not in KINDS:
        raise UsageError(f"--sources {name}: unknown kind {kind!r}; known kinds: {', '.join(sorted(KINDS))}")
    try:
        pairs = parse_qsl(fragment, strict_parsing=True) if fragment else []
    except ValueError as error:
        raise UsageError(f"--sources {name}: expected #option=value&..., found {fragment!r}") from error
    window = tuple(sorted((key.removeprefix("window."), value) for key, value in pairs if key.startswith("window.")))
    options = tuple(sorted((key, value) for key, value in pairs if not key.startswith("window.")))
    return SourceSpec(name, kind, url, options, window)


def open_source(spec: SourceSpec) -> Source:
    """Makes the reader of a source.

    Raises:
        UsageError: If it does not know one of the options.
    """
    module, _, name = KINDS[spec.kind].target.partition(":")
    source_class = getattr(importlib.import_module(module), name)
    known = [name for name in inspect.signature(source_class).parameters if name not in ("dataset", "url")]
    unknown = [name for name, _ in spec.options if name not in known]
    if unknown:
        options = f"{', '.join(known)}, window.*"
        raise UsageError(f"--sources {spec.dataset}: unknown option {', '.join(unknown)}; {spec.kind} has: {options}")
    source: Source = source_class(spec.dataset, spec.url, **dict(spec.options))
    return source


def window_settings(spec: SourceSpec, of_run: WindowSettings) -> WindowSettings:
    """The run's window settings with those of the source on top, and `auto` resolved.

    Raises:
        UsageError: If a setting is unknown or its value is wrong.
    """
    values: dict[str, str | int] = {
        name: int(value) if value.isascii() and value.isdecimal() else value for name, value in spec.window
    }
    where = f"--sources {spec.dataset}: window"
    settings = from_mapping(WindowSettings, {**of_run.__dict__, **values}, where)
    return replace(settings, mode=KINDS[spec.kind].window_mode) if settings.mode == "auto" else settings
