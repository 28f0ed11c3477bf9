"""The score of a submission whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from motret.evaluation import metrics, submission_score
from motret.formats.queries import Query


def query(name: str, candidates: tuple[int, ...]) -> Query:
    return Query(name, ("walk",), candidates, tuple(Path(f"{k}.npy") for k in candidates))


def test_similarities_are_scored_by_the_rank_of_the_right_candidate() -> None:
    queries = [query("1", (1, 2, 3)), query("02", (1, 2, 5)), query("7", (1, 2, 3))]
    similarities = [np.array([0.1, 0.9, 0.5]), np.array([3.0, 2.0, 1.0]), np.zeros(3)]
    scores = submission_score.ranking_scores(queries, {"1": 3, "2": 5}, similarities)
    np.testing.assert_allclose(scores, metrics.rank_value(np.array([1, 2])))


def test_a_query_without_an_answer_scores_nothing() -> None:
    score = submission_score.score_submission({"1": (4, 2)}, {"1": 4, "2": 1})
    assert score.mean == pytest.approx(0.5) and score.motions == 2
