"""The competition score of a submission whose right answers are known."""

from collections.abc import Mapping, Sequence

import numpy as np

from motret.evaluation import metrics
from motret.evaluation.metrics import Score
from motret.formats import challenge, submission
from motret.formats.queries import Query
from motret.formats.text_files import query_key


def score_submission(answers: dict[str, tuple[int, ...]], truth: dict[str, int]) -> Score:
    """Score of a submission's answers and its standard error over queries.

    answers: query -> candidates, best first; truth: query -> the right candidate. A query without
    an answer scores 0.
    """
    return mean_over_queries(metrics.submission_scores(answers, truth))


def mean_over_queries(scores: np.ndarray) -> Score:
    """Mean of the scores (Q,) of queries, and its standard error."""
    return metrics.cluster_robust_mean(scores, np.arange(len(scores)))


def ranking_scores(
    queries: Sequence[Query], truth: Mapping[str, int], similarities: Sequence[np.ndarray]
) -> np.ndarray:
    """Score of each query whose answer is known, ranked by similarities: (Q,), in their order.

    truth: query -> the right candidate; similarities: of each query to its candidates, (n,) each.
    """
    ranking = submission.rank_candidates(queries, similarities)
    answers = {
        query_key(query): tuple(candidates[: challenge.TOP_K])
        for query, candidates in ranking.items()
    }
    return metrics.submission_scores(answers, dict(truth))
