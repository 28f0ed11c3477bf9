"""Captions as text: when two of them say the same."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def words(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", caption).lower())


def normalise(caption: str) -> str:
    """The form in which captions are compared: case, punctuation and spacing do not count."""
    return " ".join(words(caption))
