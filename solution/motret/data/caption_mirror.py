"""Captions in the mirror: left and right change places, clockwise and counterclockwise too,
wherever a side is meant.

A caption is decided as a whole: each of its side words changes or stays for a reason, or the
caption is not mirrored at all (None). A word changes only where it would mean a side whichever of
the two stood there (`side_words`), so mirroring is its own inverse.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence

from motret.data import side_words
from motret.data.side_words import CONTEXT_SIZE, OPPOSITE, Context, Meaning
from motret.utils import files

_CODE = 1  # raise it with any change of the rules that no table or pattern shows
RULES = files.content_hash(_CODE, *side_words.RULES)
"""Changes with the rules of mirroring: part of the key of all files made of mirrored captions."""


@functools.lru_cache(1 << 17)
def mirror_caption(text: str) -> str | None:
    """The text of the mirrored motion, capitals as they were; None where it is not certain which of
    its words change.

    Whatever is not None comes back: `mirror_caption(mirror_caption(text)) == text`. A text that
    names no side is its own mirror.
    """
    mirrored = _exchange_sides(text)
    return None if mirrored is None or _exchange_sides(mirrored) != text else mirrored


def mirror_captions(texts: Iterable[str]) -> dict[str, str]:
    """The mirror of each text that has one."""
    mirrors = {text: mirror_caption(text) for text in texts}
    return {text: mirrored for text, mirrored in mirrors.items() if mirrored is not None}


def _exchange_sides(text: str) -> str | None:
    """The text with every word that means a side exchanged; None where a word is not certain."""
    matches = [
        match for match in side_words.WORD.finditer(text) if side_words.may_name_side(match[0])
    ]
    words = [match[0] for match in matches]
    if any(word.lower() not in OPPOSITE for word in words) or side_words.OCLOCK.search(text):
        return None
    edges = [0, *(edge for match in matches for edge in match.span()), len(text)]
    gaps = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    meanings = _meanings([gap.lower() for gap in gaps], [word.lower() for word in words])
    if Meaning.UNCERTAIN in meanings:
        return None
    if Meaning.SIDE in meanings and Meaning.NO_SIDE_ALONE in meanings:
        return None
    exchanged = [
        _opposite(word) if meaning is Meaning.SIDE else word
        for word, meaning in zip(words, meanings, strict=True)
    ]
    return _interleave(gaps, exchanged)


def _meanings(gaps: Sequence[str], words: Sequence[str]) -> list[Meaning]:
    """What each side word means; gaps: the text before, between and after the words, all in lower
    case."""
    marks = ["@" if word in ("left", "right") else "@s" for word in words]
    text = _interleave(gaps, marks)
    meanings = []
    end = 0
    for gap, word, mark in zip(gaps, words, marks, strict=False):
        start = end + len(gap)
        end = start + len(mark)
        if mark == "@":
            before, after = (
                text[max(0, start - CONTEXT_SIZE) : start],
                text[end : end + CONTEXT_SIZE],
            )
            meanings.append(side_words.meaning_of(word, Context(before, after)))
        else:
            meanings.append(Meaning.SIDE)
    return meanings


def _opposite(word: str) -> str:
    """The word for the other side, with the same capitals."""
    opposite = OPPOSITE[word.lower()]
    if word.isupper():
        return opposite.upper()
    return opposite.capitalize() if word[0].isupper() else opposite


def _interleave(gaps: Sequence[str], words: Sequence[str]) -> str:
    """Gaps and the words between them as one text."""
    pairs = itertools.zip_longest(gaps, words, fillvalue="")
    return "".join(gap + word for gap, word in pairs)
