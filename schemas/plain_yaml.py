"""Parses YAML as plain values: no tags, and no aliases, with which a few lines stand for gigabytes."""

from __future__ import annotations

from typing import Any

import yaml


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "found an alias; write the value out", mark)
        return super().compose_node(parent, index)


def parse_yaml(content: bytes | str) -> Any:
    """The value that a YAML document holds: None, numbers, text, dates, lists and mappings.

    Raises:
        ValueError: In one line, if it is no YAML, has a tag of another type or an alias, or is nested too deeply.

    >>> parse_yaml("a: [1, 2]")
    {'a': [1, 2]}
    """
    try:
        return yaml.load(content, _PlainLoader)
    except RecursionError as error:
        raise ValueError("values nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError) as error:
        # Beside errors of its own PyYAML lets through what its constructors meet: an impossible date, "!!timestamp x".
        raise ValueError(" ".join(str(error).split())) from error
