"""JSON and YAML of strangers: plain values, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import EFFORTS, json_mutants, survives

from pipelines.request import PreprocessSettings
from runtime.settings import from_mapping, load_settings, to_mapping
from schemas.errors import DataError, UsageError
from schemas.plain_json import MOST_LEVELS, parse_json
from schemas.plain_yaml import parse_yaml

LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1)])
def test_deep_json_is_an_error_of_values(text: str) -> None:
    for content in (text, text.encode(), text.encode("utf-16")):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong, it is this
            parse_json(content)


def test_json_that_is_not_deep_is_read() -> None:
    assert parse_json("[" * MOST_LEVELS + "]" * MOST_LEVELS)
    assert parse_json('["' + "[" * 1000 + '", "\\"[", "\\\\"]') == ["[" * 1000, '"[', "\\"]


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS, "a: &x [1]\nb: *x", "- &a [*a]", "<<: [*a, *a]", "a: !!python/object/apply:os.system ['true']",
        "!!python/name:os.system", "!!timestamp x", "!!int '_'", "a: 2020-99-99", "? [a]\n: b", b"\xff\xfe\x00", b"\xff",
        "[" * 2000, "a: " + "9" * 5000, "a: b: c", "\t",
    ],
)  # fmt: skip
def test_tags_aliases_and_damage_in_yaml_are_one_line(text: str | bytes) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        parse_yaml(text)
    assert "\n" not in str(error.value)


def test_plain_yaml_is_read() -> None:
    assert parse_yaml("a: {b: [1, 2.5, true, null, text]}") == {"a": {"b": [1, 2.5, True, None, "text"]}}


@EFFORTS
def test_any_configuration_is_read_or_one_line(tmp_path: Path, effort: int) -> None:
    path = tmp_path / "vpp.yaml"
    document = {"preprocess": to_mapping(PreprocessSettings())}

    def read(content: bytes) -> None:
        path.write_bytes(content)
        load_settings(PreprocessSettings, "preprocess", ["--config", str(path)])

    survives(read, json_mutants(document), effort)


@EFFORTS
def test_any_mapping_becomes_settings_or_one_line(effort: int) -> None:
    def read(content: bytes) -> None:
        try:
            values = parse_json(content)
        except ValueError:
            return
        from_mapping(PreprocessSettings, values, "here")

    survives(read, json_mutants(to_mapping(PreprocessSettings())), effort)


def test_what_was_found_is_told_in_bounds() -> None:
    with pytest.raises(UsageError) as error:
        from_mapping(PreprocessSettings, {"num_encoders": "x" * 1_000_000, 5: 1}, "here")
    assert len(str(error.value)) < 1000
    assert len(DataError("x", "y" * 1_000_000).detail) < 3000
