"""How far two submissions differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from motret import submission
from motret.challenge import some
from motret.faults import DataFault


@dataclass(frozen=True)
class Difference:
    """Over the queries of two submissions: correlation of their ranks, share whose first candidate changed, candidates in common of k."""

    queries: int
    correlation: float
    changed: float
    overlap: float
    top_k: int

    def line(self) -> str:
        """For people."""
        return (
            f"rank correlation {self.correlation:.4f}, first candidate changed in {self.changed:.1%} of {self.queries} queries, "
            f"{self.overlap:.2f} of {self.top_k} candidates in common"
        )


def compare(first: Path, second: Path) -> Difference:
    """Compares two submissions of the same queries and length. DataFault where they are not."""
    top_k = submission.columns(first)
    one, other = submission.read_submission(first, top_k=top_k), submission.read_submission(second, top_k=top_k)
    if unlike := sorted(one.keys() ^ other.keys()):
        raise DataFault(second, f"answers other queries than {first.name}: {some(unlike)}", "compare submissions of one test folder")
    pairs = [(one[query], other[query]) for query in one]
    return Difference(
        queries=len(pairs),
        correlation=float(np.mean([rank_correlation(*pair) for pair in pairs])),
        changed=float(np.mean([mine[0] != yours[0] for mine, yours in pairs])),
        overlap=float(np.mean([len(set(mine) & set(yours)) for mine, yours in pairs])),
        top_k=top_k,
    )


def rank_correlation(first: Sequence[int], second: Sequence[int]) -> float:
    """Spearman's correlation of two rankings over all that either lists; what one does not list shares its places after the last."""
    every = sorted({*first, *second})
    ranks = [rankdata([own.index(one) if one in own else len(own) for one in every]) for own in (first, second)]
    if len(every) == 1:
        return 1.0
    return float(np.corrcoef(*ranks)[0, 1])
