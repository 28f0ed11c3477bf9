"""Sentences about one person, joined to captions of a scene of two."""

import re

import numpy as np

_SUBJECT = re.compile(
    r"(?:(?:a|an|the|this|one|another) )?(?:(?:standing|sitting|male|female|young|old) )?"
    r"(?:person|man|woman|guy|girl|boy|figure|human|individual|character|actor|dancer|someone"
    r"|somebody|he|she|they)\b",
    re.I,
)
FIRST = ("a person", "one person", "the first person", "one of them", "someone")
SECOND = ("the other person", "the other", "the second person", "another person")
JOINTS = (", while ", " while ", " and ", ". ")
ALONE = 0.2
"""Fraction of the captions of a scene that tell of one person alone."""


def join_sentences(first: str, second: str, rng: np.random.Generator) -> str:
    """One caption of a scene in which one person does what `first` says and the other `second`.

    Either comes first; sometimes one is all that is told.
    """
    if rng.random() < 0.5:
        first, second = second, first
    caption = with_subject(first, str(rng.choice(FIRST)))
    if rng.random() < ALONE:
        return caption
    return caption + str(rng.choice(JOINTS)) + with_subject(second, str(rng.choice(SECOND)))


def with_subject(sentence: str, subject: str) -> str:
    """The sentence with this subject in place of its own; before it, where it names none."""
    text = sentence.strip().rstrip(".").strip()
    former = _SUBJECT.match(text)
    return f"{subject} {text[former.end() :].lstrip() if former else text}".strip()
