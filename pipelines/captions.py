"""Cleans captions: what CLIP's tokenizer gets is plain words on one line.

Ego4D's narrations carry tags: `#C` marks what the camera wearer does and is followed by the subject `C`, `#O`
another person's action (`#O A man X ...`), `#Summary` a summary, `#unsure` a doubtful one (Ego4D, "Narrations" in
the dataset's documentation). CLIP has never seen `C` as a subject, so the wearer becomes "a person" and another
person keeps their words without the letter that stands for their name.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 1000
"""Captions are cut here; CLIP reads 20 tokens of them."""

_TAG = re.compile(r"#\s*[A-Za-z]+")
_UNSURE = re.compile(r"#\s*unsure", re.IGNORECASE)
_WEARER = re.compile(r"^C\b")
_WEARERS = re.compile(r"\bC's\b")
_NAME_LETTER = re.compile(r"^((?:a|an|the|another)\s+\w+)\s+[A-Z]\b(?=\s)", re.IGNORECASE)


def clean_caption(text: str) -> str:
    """One line of NFC text without control characters, at most 1000 characters long; may be empty.

    >>> clean_caption("  Pick up\\tthe\\n bottle. ")
    'Pick up the bottle.'
    """
    visible = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in text)
    return " ".join(unicodedata.normalize("NFC", visible).split())[:MAX_CHARACTERS].rstrip()


def is_unsure(narration: str) -> bool:
    """Whether the annotator doubted it."""
    return bool(_UNSURE.search(narration))


def is_of_other_person(narration: str) -> bool:
    """Whether it tells what somebody else than the camera wearer does."""
    return bool(re.match(r"\s*#\s*O\b", narration))


def clean_narration(narration: str) -> str:
    """An Ego4D narration or summary as a caption, without tags; may be empty.

    >>> clean_narration("#C C picks up the mango from the table")
    'a person picks up the mango from the table'
    >>> clean_narration("#O A man X moves a hand")
    'A man moves a hand'
    >>> clean_narration("#Summary C moves the mango to the basket.")
    'a person moves the mango to the basket.'
    """
    words = clean_caption(_TAG.sub(" ", narration))
    words = _WEARERS.sub("the person's", _WEARER.sub("a person", words))
    return clean_caption(_NAME_LETTER.sub(r"\1", words))
