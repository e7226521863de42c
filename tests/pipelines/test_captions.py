"""Captions are one clean line, and cleaning them twice changes nothing."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.captions import MAX_CHARACTERS, clean_caption, clean_narration, is_of_other_person, is_unsure

ANY_TEXT = st.text(st.characters(), max_size=1200)  # surrogates too: JSON may hold half of a pair


@given(text=ANY_TEXT)
def test_cleaning_is_idempotent_and_gives_one_visible_line(text: str) -> None:
    caption = clean_caption(text)
    assert clean_caption(caption) == caption
    assert caption == caption.strip()
    assert len(caption) <= MAX_CHARACTERS
    assert unicodedata.is_normalized("NFC", caption)
    assert not [letter for letter in caption if unicodedata.category(letter)[0] in "CZ" and letter != " "]


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("Pick up\tthe\r\n\x00 bottle ", "Pick up the bottle"),
        ("cafe\u0301", "caf\u00e9"),
        ("\ufeffsoft\u00adhyphen and\u00a0space", "softhyphen and space"),
        ("half a \ud83d pair", "half a pair"),
        ("\u62ff\u8d77\u676f\u5b50", "\u62ff\u8d77\u676f\u5b50"),
        (" \t\n", ""),
        ("x" * 3000, "x" * MAX_CHARACTERS),
    ],
)
def test_captions_become_one_line(text: str, caption: str) -> None:
    assert clean_caption(text) == caption


@pytest.mark.parametrize(
    ("narration", "caption"),
    [
        ("#C C grasps the mango", "a person grasps the mango"),
        ("#c C grasps the mango", "a person grasps the mango"),
        ("#c c grasps the mango", "a person grasps the mango"),
        ("#CC grasps the mango", "a person grasps the mango"),
        ("#C C C grasps the mango", "a person grasps the mango"),
        ("# C: C grasps the mango", "a person grasps the mango"),
        ("#C  C looks at C's hand", "a person looks at the person's hand"),
        ("#C C tightens the C-clamp", "a person tightens the C-clamp"),
        ("#C C cuts a cable", "a person cuts a cable"),
        ("#C C talks to the woman X's friend Y", "a person talks to the woman's friend"),
        ("#O A man X moves a hand", "A man moves a hand"),
        ("#O a woman Y hands C a cup", "a woman hands a person a cup"),
        ("#O X hands the man Z a cup", "a person hands the man a cup"),
        ("#O A dog runs", "A dog runs"),
        ("#Summary C picked a mango from a table. C left.", "a person picked a mango from a table. the person left."),
        ("#C C moves something #unsure", "a person moves something"),
        ("#C", ""),
        ("Clears the table", "Clears the table"),
    ],
)
def test_narrations_become_captions(narration: str, caption: str) -> None:
    assert clean_narration(narration) == caption


@given(narration=st.text("#cCoOxX unsre.\x00\n", max_size=40))
def test_no_tag_is_left_in_a_narration(narration: str) -> None:
    caption = clean_narration(narration)
    assert not re.search(r"#\s*[a-z]", caption, re.IGNORECASE)
    assert clean_caption(caption) == caption


def test_doubt_and_other_people_are_seen_in_any_case() -> None:
    assert is_unsure("#C C moves #Unsure")
    assert is_unsure("# unsure something")
    assert not is_unsure("#C C is unsure of the way")
    assert is_of_other_person("#O A man walks")
    assert is_of_other_person("#unsure #o A man walks")
    assert not is_of_other_person("#C C opens the oven")
