"""The competition score of a submission whose right answers are known."""

import numpy as np

from motret.evaluation import metrics
from motret.evaluation.metrics import Score


def score_submission(answers: dict[str, tuple[int, ...]], truth: dict[str, int]) -> Score:
    """Score of a submission's answers and its standard error over queries.

    answers: query -> candidates, best first; truth: query -> the right candidate. A query without
    an answer scores 0.
    """
    return mean_over_queries(metrics.submission_scores(answers, truth))


def mean_over_queries(scores: np.ndarray) -> Score:
    """Mean of the scores (Q,) of queries, and its standard error."""
    return metrics.cluster_robust_mean(scores, np.arange(len(scores)))
