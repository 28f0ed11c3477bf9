"""How far two submissions differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from motret.errors import DataError
from motret.formats.submission import read_submission, submission_columns
from motret.formats.text_files import preview


@dataclass(frozen=True)
class SubmissionDifference:
    """The difference of two submissions, over their queries."""

    queries: int
    correlation: float
    """Mean Spearman correlation of the rankings."""
    changed: float
    """Fraction of queries whose first candidate differs."""
    overlap: float
    """Mean number of candidates in both rankings."""
    top_k: int

    def summary(self) -> str:
        """One line for a terminal."""
        return (
            f"rank correlation {self.correlation:.4f}, first candidate changed in "
            f"{self.changed:.1%} of {self.queries} queries, "
            f"{self.overlap:.2f} of {self.top_k} candidates in common"
        )


def compare_submissions(first: Path, second: Path) -> SubmissionDifference:
    """Compares two submissions of the same queries and length; DataError where they are not."""
    top_k = submission_columns(first)
    answers = read_submission(first, top_k=top_k)
    other_answers = read_submission(second, top_k=top_k)
    if differing := sorted(answers.keys() ^ other_answers.keys()):
        problem = f"answers other queries than {first.name}: {preview(differing)}"
        raise DataError(second, problem, "compare submissions of the same test folder")
    pairs = [(ranking, other_answers[query]) for query, ranking in answers.items()]
    return SubmissionDifference(
        queries=len(pairs),
        correlation=float(np.mean([rank_correlation(*pair) for pair in pairs])),
        changed=float(np.mean([ranking[0] != other[0] for ranking, other in pairs])),
        overlap=float(np.mean([len(set(ranking) & set(other)) for ranking, other in pairs])),
        top_k=top_k,
    )


def rank_correlation(first: Sequence[int], second: Sequence[int]) -> float:
    """Spearman correlation of two rankings, over all candidates that either lists.

    Candidates that a ranking does not list are tied after its last.
    """
    candidates = sorted({*first, *second})
    if len(candidates) == 1:
        return 1.0
    ranks = [
        rankdata(
            [ranking.index(number) if number in ranking else len(ranking) for number in candidates]
        )
        for ranking in (first, second)
    ]
    return float(np.corrcoef(*ranks)[0, 1])
