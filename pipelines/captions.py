"""Cleans captions: what CLIP's tokenizer gets is plain words on one line.

Ego4D's annotators mark each sentence with a tag: `#C` tells what the camera wearer does and calls them `C`, `#O` what
somebody else does and tells people apart by a letter (`#O A man X ...`), `#unsure` a doubtful statement, `#summary` a
summary (Ego4D documentation, "Annotation Guidelines", section "Narrations").

EgoVLP (arXiv 2206.01670) and LaViLa (arXiv 2212.04501) train their text encoders on the raw sentences, `#C C` included.
CLIP's is frozen here and knows `C` only as a letter, so the wearer becomes "a person", at later mentions "the person".
That keeps a subject in the sentence, as the captions of the other datasets have, and claims nothing that a third-person
video would contradict. The letters of other people are dropped.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import chain, repeat

MAX_CHARACTERS = 1000
"""Captions are cut here; CLIP reads 20 tokens of them."""

_TAG = re.compile(r"(?:#\s*)+(?:C(?=C\b)|[a-z]+)", re.IGNORECASE)  # `#CC takes` lacks the space of `#C C takes`
_UNSURE = re.compile(r"#\s*unsure", re.IGNORECASE)
_OTHER_PERSON = re.compile(r"#\s*O\b", re.IGNORECASE)
_LETTER_OF_PERSON = re.compile(
    r"\b(?P<noun>(?i:man|woman|person|lady|gentleman|boy|girl|child|kid|baby|guy|friend|player)) [ABD-HJ-Z](?![\w-])"
)
_LETTER_FOR_PERSON = re.compile(r"^[BD-HJ-Z](?![\w-])")
_WEARER = re.compile(r"^[Cc](?: [Cc])*(?![\w-])|(?<![\w-])C(?![\w-])")


def clean_caption(text: str) -> str:
    """One line of NFC text without invisible characters, at most `MAX_CHARACTERS` long; may be empty. Idempotent.

    >>> clean_caption("  Pick up\\tthe\\n bottle. ")
    'Pick up the bottle.'
    """
    if not (text.isascii() and text.isprintable()):  # few are not, and a look at each letter costs ten times as much
        text = unicodedata.normalize("NFC", "".join(map(_visible, text)))
    return " ".join(text.split())[:MAX_CHARACTERS].rstrip()


def is_unsure(narration: str) -> bool:
    """Whether the annotator doubted it."""
    return bool(_UNSURE.search(narration))


def is_of_other_person(narration: str) -> bool:
    """Whether it tells what somebody else than the camera wearer does."""
    return bool(_OTHER_PERSON.search(narration))


def clean_narration(narration: str) -> str:
    """An Ego4D narration or summary as a caption, without tags; may be empty.

    >>> clean_narration("#C C picks up the mango from the table")
    'a person picks up the mango from the table'
    >>> clean_narration("#O A man X hands C a cup")
    'A man hands a person a cup'
    >>> clean_narration("#Summary C washed C's hands. C left.")
    "a person washed the person's hands. the person left."
    """
    words = clean_caption(_TAG.sub(" ", clean_caption(narration))).lstrip(" .,:;-")
    words = _LETTER_OF_PERSON.sub(r"\g<noun>", words)
    if is_of_other_person(narration):
        words = _LETTER_FOR_PERSON.sub("a person", words)
    wearer = chain(["a person"], repeat("the person"))
    return clean_caption(_WEARER.sub(lambda _: next(wearer), words))


def _visible(letter: str) -> str:
    category = unicodedata.category(letter)
    if category[0] == "Z" or category == "Cc":
        return " "
    return "" if category[0] == "C" else letter  # a soft hyphen or a zero-width space stands inside a word
