"""Sentences about one person become captions of a scene of two."""

import numpy as np
import pytest

from motret.data.sentence_pairs import ALONE, FIRST, SECOND, join_sentences, with_subject


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A man walks forward.", "the other walks forward"),
        ("the standing person kicks", "the other kicks"),
        ("he is jumping", "the other is jumping"),
        ("someone waves their hand", "the other waves their hand"),
        ("walking in a circle", "the other walking in a circle"),
        ("a personal best", "the other a personal best"),
    ],
)
def test_a_sentence_gets_another_subject(sentence, expected):
    assert with_subject(sentence, "the other") == expected


def test_a_joined_caption_tells_of_both_persons_or_of_one():
    rng = np.random.default_rng(0)
    joined = [join_sentences("a man waves", "she kneels down", rng) for _ in range(400)]
    both = [text for text in joined if "waves" in text and "kneels down" in text]
    assert len(both) / len(joined) == pytest.approx(1 - ALONE, abs=0.06)
    assert any(text.index("waves") < text.index("kneels") for text in both)
    assert any(text.index("waves") > text.index("kneels") for text in both)
    assert all(text.startswith(FIRST) for text in joined)
    assert all(any(subject in text for subject in SECOND) for text in both)
