"""Weights become probabilities; names that are not there are left out of a preset and refused elsewhere."""

from __future__ import annotations

import logging

import pytest

from pipelines.sources.openx_registry import REGISTRY
from schemas.errors import UsageError
from vpp.data.mixture import ALSO_CALLED, PRESETS, mixture_probabilities, parse_cameras, parse_mixture


def test_no_mixture_draws_every_clip_alike() -> None:
    assert parse_mixture("").probabilities({"a": 30, "b": 10, "empty": 0}) == {"a": 0.75, "b": 0.25}


def test_an_explicit_mixture_holds_probabilities_unless_it_says_otherwise() -> None:
    sizes = {"a": 300, "b": 100}
    assert parse_mixture("a=1,b=3").probabilities(sizes) == {"a": 0.25, "b": 0.75}
    assert parse_mixture("a=1,b=3:fixed").probabilities(sizes) == {"a": 0.25, "b": 0.75}
    assert parse_mixture("a=1,b=3:weight_x_size").probabilities(sizes) == {"a": 0.5, "b": 0.5}
    assert parse_mixture("a=1,b=0").probabilities(sizes) == {"a": 1.0}


def test_the_published_mixture_is_that_of_the_paper() -> None:
    sizes = dict.fromkeys(PRESETS["vpp"].weights, 1) | {"sthv2": 10**6}
    found = parse_mixture("vpp").probabilities(sizes)
    assert sum(found.values()) == pytest.approx(1)
    assert found["sthv2"] == pytest.approx(0.30)
    assert found["xhand"] / found["calvin"] == pytest.approx(1)


def test_a_preset_leaves_out_what_is_absent_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = parse_mixture("vpp").probabilities({"bridge": 5, "calvin": 5, "mine": 7})
    assert found == pytest.approx({"bridge": 0.6, "calvin": 0.4})
    without, unused = (record.getMessage() for record in caplog.records)
    assert "sthv2" in without
    assert "bridge" not in without
    assert unused.endswith("mine")


def test_octos_mixture_multiplies_with_size() -> None:
    found = parse_mixture("oxe_magic_soup").probabilities({"taco_play": 100, "bc_z": 1000})
    assert found == pytest.approx({"taco_play": 0.5, "bc_z": 0.5})
    assert parse_mixture("oxe_magic_soup:fixed").probabilities({"taco_play": 1, "bc_z": 9})["bc_z"] == pytest.approx(
        1 / 11
    )


def test_names_of_open_x_datasets_are_those_of_the_reader() -> None:
    known = {name for names in (PRESETS["vpp"].weights, PRESETS["oxe_magic_soup"].weights) for name in names}
    also = {other for names in ALSO_CALLED.values() for other in names}
    assert set(REGISTRY) <= known | also


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a=1,c=1", "c; known: a, b"),
        ("oxe_magic_soup", "at least one of its datasets"),
        ("octo", "vpp, oxe_magic_soup, found 'octo'"),
        ("a=1:sized", "'sized'"),
        ("a=-1", "'a=-1'"),
        ("a=nan", "'a=nan'"),
        ("a=1,a=2", "'a=2'"),
        ("a=0", "above 0"),
        ("a=", "'a='"),
    ],
)
def test_a_mistake_is_told(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_mixture(text).probabilities({"a": 1, "b": 1})


@pytest.mark.parametrize("text", ["calvin", "calvin:a", ":a=1", "calvin:a=1;calvin:b=1"])
def test_a_mistake_in_cameras_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="cameras"):
        parse_cameras(text)


def test_datasets_without_clips_have_no_probability() -> None:
    assert mixture_probabilities({"a": 1.0}, {"a": 0}, "fixed") == {}
