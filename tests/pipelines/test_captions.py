"""Captions are one clean line, and cleaning them twice changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.captions import clean_caption, clean_narration, is_of_other_person, is_unsure


@given(text=st.text())
def test_cleaning_is_idempotent_and_gives_one_line(text: str) -> None:
    caption = clean_caption(text)
    assert clean_caption(caption) == caption
    assert caption == caption.strip()
    assert not set("\n\r\t\x00") & set(caption)
    assert len(caption) <= 1000


@pytest.mark.parametrize(
    ("narration", "caption"),
    [
        ("#C C grasps the mango", "a person grasps the mango"),
        ("#c C grasps the mango", "a person grasps the mango"),
        ("#C  C looks at C's hand", "a person looks at the person's hand"),
        ("#O A man X moves a hand", "A man moves a hand"),
        ("#O a woman Y hands C a cup", "a woman hands C a cup"),
        ("#Summary C picked a mango from a table.", "a person picked a mango from a table."),
        ("#C", ""),
        ("Clears the table", "Clears the table"),
    ],
)
def test_narrations_become_captions(narration: str, caption: str) -> None:
    assert clean_narration(narration) == caption


def test_doubt_and_other_people_are_seen_in_any_case() -> None:
    assert is_unsure("#C C moves #Unsure")
    assert is_unsure("# unsure something")
    assert not is_unsure("#C C is unsure of the way")
    assert is_of_other_person("#O A man walks")
    assert not is_of_other_person("#C C opens the oven")
