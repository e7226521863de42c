"""The formats that can be read, by kind. `open_source` is the one way in."""

from __future__ import annotations

from pipelines.sources.registry import KINDS, SourceSpec, open_source, parse_source, window_settings

__all__ = ["KINDS", "SourceSpec", "open_source", "parse_source", "window_settings"]
