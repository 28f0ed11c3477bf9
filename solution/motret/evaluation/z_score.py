"""The scale of similarities: members of a mean are standardized by their own held-out galleries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ZScore:
    """Mean and standard deviation of a model's similarities over its held-out gallery."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, similarity: np.ndarray) -> "ZScore":
        """That of similarities of any shape."""
        return cls(float(similarity.mean()), max(float(similarity.std()), 1e-12))

    @classmethod
    def of_vectors(cls, text: np.ndarray, motion: np.ndarray) -> "ZScore":
        """That of the products (C, M) of embeddings (C, d) and (M, d), without forming them.

        Their mean is the product of the mean embeddings. The mean of their squares is sum(A * B) /
        (C M) with A, B: (d, d) the sums of outer products of the embeddings with themselves.
        """
        text, motion = text.astype(np.float64), motion.astype(np.float64)
        mean = float(text.mean(axis=0) @ motion.mean(axis=0))
        square = float(((text.T @ text) * (motion.T @ motion)).sum()) / (len(text) * len(motion))
        return cls(mean, max(max(square - mean**2, 0.0) ** 0.5, 1e-12))

    @classmethod
    def mean_of(cls, scales: Sequence["ZScore"]) -> "ZScore":
        """The mean of several, for a model that has no held-out gallery."""
        mean = float(np.mean([scale.mean for scale in scales]))
        return cls(mean, float(np.mean([scale.deviation for scale in scales])))

    def __call__(self, similarity: np.ndarray) -> np.ndarray:
        """The similarities with mean 0 and standard deviation 1 over the gallery."""
        return (similarity - self.mean) / self.deviation
