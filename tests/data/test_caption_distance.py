"""Distances of captions in their words, against a twin in plain NumPy."""

import numpy as np
import pytest

from motret.data import caption_distance
from motret.data.caption_distance import WordDistance

REFERENCES = [
    "one waves",
    "One waves!",
    "a person kicks the ball",
    "both persons bow and bow again",
]
CAPTIONS = ["one  waves.", "a person waves", "the zebra kicks", "xylophone", "both bow bow", ""]


def twin(captions: list[str], references: list[str]) -> np.ndarray:
    """The same distances word by word, without scikit-learn."""
    plain = sorted({text.lower().strip("!.") for text in references})
    vocabulary = sorted({word for text in (*plain, *captions) for word in text.strip(".").split()})
    df = np.array([sum(word in text.split() for text in plain) for word in vocabulary])
    idf = np.log((1 + len(plain)) / (1 + df)) + 1

    def vector(text: str) -> np.ndarray:
        split = text.strip(".").split()
        counts = np.array([split.count(word) for word in vocabulary], dtype=float)
        logs = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
        return logs / max(float(np.linalg.norm(logs)), 1e-12)

    known = [vector(text) for text in plain]
    return np.array([1 - max(vector(text) @ other for other in known) for text in captions])


@pytest.mark.parametrize("chunk_size", [1, 1024])
def test_distances_are_those_of_the_twin(chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_distance, "CHUNK_SIZE", chunk_size)
    distance = caption_distance.nearest_distance(CAPTIONS, REFERENCES)
    np.testing.assert_allclose(distance, twin(CAPTIONS, REFERENCES), atol=1e-6)
    assert distance[0] == 0 and distance[3] == 1 and distance[5] == 1


def test_an_unseen_word_puts_a_caption_farther() -> None:
    same, unseen = caption_distance.nearest_distance(["one waves", "one waves zebra"], REFERENCES)
    assert same == 0 and unseen > 0.25


def test_captions_without_words_are_far_from_all() -> None:
    np.testing.assert_array_equal(caption_distance.nearest_distance(["", "!"], ["?"]), [1, 1])


def test_unseen_words_are_counted_with_repetitions() -> None:
    measured = WordDistance.of(["a zebra and a zebra", "One WAVES", ""], REFERENCES)
    assert measured.unseen.tolist() == [2, 0, 0] and measured.n_words.tolist() == [5, 2, 0]
    assert measured.unseen_share == pytest.approx(2 / 7)
