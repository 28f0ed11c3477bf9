"""How far captions are from others in their words alone: unseen words, nearest caption.

The vectors are TF-IDF of words, so that no model is needed and every data set is measured alike.
scikit-learn is slow to import, and every script reads captions: it is imported where it is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.data.captions import normalize, words

CHUNK_SIZE = 1024
"""References that all captions are compared with at a time."""


@dataclass(frozen=True, eq=False)
class WordDistance:
    """How far each of C captions is from others.

    unseen: (C,) its words that none of the others has; n_words: (C,) all its words; distance: (C,)
    to the nearest of the others.
    """

    unseen: np.ndarray
    n_words: np.ndarray
    distance: np.ndarray

    @classmethod
    def of(cls, captions: Sequence[str], references: Sequence[str]) -> "WordDistance":
        """That of captions to references."""
        return cls(*count_words(captions, references), nearest_distance(captions, references))

    @property
    def unseen_share(self) -> float:
        """Share of all words that is unseen."""
        return float(self.unseen.sum() / max(1, self.n_words.sum()))


def count_words(
    captions: Sequence[str], references: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Words (C,) of each caption that no reference has, and all its words (C,)."""
    vocabulary = {word for caption in set(references) for word in words(caption)}
    split = [words(caption) for caption in captions]
    unseen = [sum(word not in vocabulary for word in own_words) for own_words in split]
    return np.array(unseen, dtype=int), np.array([len(own_words) for own_words in split], dtype=int)


def nearest_distance(captions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """1 - cosine of each caption to the nearest of the references: (C,) in [0, 1].

    Of TF-IDF vectors of words (1 + log of the count, times the inverse document frequency in the
    references, unit length). A word that no reference has counts as the rarest, so it is far from
    all of them. A caption that says the same as a reference has distance 0.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    queries = sorted({normalize(caption) for caption in captions})
    others = sorted({normalize(caption) for caption in references})
    vocabulary = sorted({word for caption in (*queries, *others) for word in caption.split()})
    if not vocabulary:
        return np.ones(len(captions))
    vectorizer = TfidfVectorizer(
        tokenizer=str.split,
        token_pattern=None,
        lowercase=False,
        sublinear_tf=True,
        vocabulary=vocabulary,
        dtype=np.float32,
    ).fit(others)
    query_vectors, reference_vectors = (
        vectorizer.transform(queries),
        vectorizer.transform(others),
    )
    cosine = np.zeros(len(queries), dtype=np.float32)
    for start in range(0, len(others), CHUNK_SIZE):  # dense columns are several times as fast
        columns = reference_vectors[start : start + CHUNK_SIZE].T.toarray()
        np.maximum(cosine, (query_vectors @ columns).max(axis=1), out=cosine)
    distance = np.clip(1 - cosine.astype(float), 0, 1)
    distance[distance < 1e-6] = 0
    by_caption = dict(zip(queries, distance.tolist(), strict=True))
    return np.array([by_caption[normalize(caption)] for caption in captions])
