"""The scale of similarities: members are standardised by their own held-out gallery, then averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ZScore:
    """Mean and deviation of a member's similarities over the gallery it had not seen: they put members on one scale."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, similarity: np.ndarray) -> "ZScore":
        return cls(float(similarity.mean()), max(float(similarity.std()), 1e-12))

    @classmethod
    def of_vectors(cls, text: np.ndarray, motion: np.ndarray) -> "ZScore":
        """That of the products (C, M) of vectors (C, d) and (M, d), which are not made.

        Their mean is the product of the mean vectors. The mean of their squares is sum(A * B) / (C M) with A, B: (d, d) the sums of
        outer products of the vectors with themselves.
        """
        one, other = text.astype(np.float64), motion.astype(np.float64)
        mean = float(one.mean(axis=0) @ other.mean(axis=0))
        square = float(((one.T @ one) * (other.T @ other)).sum()) / (len(one) * len(other))
        return cls(mean, max(max(square - mean**2, 0.0) ** 0.5, 1e-12))

    @classmethod
    def mean_of(cls, scales: Sequence["ZScore"]) -> "ZScore":
        """For a model that has no gallery of its own."""
        return cls(float(np.mean([scale.mean for scale in scales])), float(np.mean([scale.deviation for scale in scales])))

    def __call__(self, similarity: np.ndarray) -> np.ndarray:
        return (similarity - self.mean) / self.deviation
