"""evaluation.submission_score."""

import numpy as np

from motret.evaluation import metrics
from motret.evaluation.metrics import Score


def score_submission(answers: dict[str, tuple[int, ...]], truth: dict[str, int]) -> Score:
    """Competition score of a submission's answers and its standard error over queries; a query not answered scores 0."""
    return mean_over_queries(metrics.submission_scores(answers, truth))


def mean_over_queries(scores: np.ndarray) -> Score:
    """Mean of the scores of queries (Q,), and its standard error."""
    return metrics.cluster_robust_mean(scores, np.arange(len(scores)))
