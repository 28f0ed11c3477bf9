"""How far two submissions differ."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from motret.errors import DataError
from motret.formats.submission import write_submission
from motret.formats.submission_comparison import compare_submissions, rank_correlation


@given(st.permutations(range(1, 8)))
def test_rankings_of_the_same_candidates_have_spearmans_correlation(ranking: list[int]) -> None:
    numbers = range(1, 8)
    expected = spearmanr([ranking.index(number) for number in numbers], numbers).statistic
    assert rank_correlation(ranking, numbers) == pytest.approx(expected)


def test_candidates_that_a_ranking_does_not_list_are_tied_after_its_last() -> None:
    assert rank_correlation([1], [1]) == 1
    assert rank_correlation([1, 2], [3, 4]) == pytest.approx(
        spearmanr([0, 1, 2, 2], [2, 2, 0, 1]).statistic
    )


def test_changed_queries_and_shared_candidates_are_counted(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    write_submission(first, {"1": [1, 2, 3], "2": [4, 5, 6]}, top_k=3)
    write_submission(second, {"2": [5, 4, 9], "1": [1, 2, 3]}, top_k=3)
    difference = compare_submissions(first, second)
    assert (difference.queries, difference.changed, difference.overlap) == (2, 0.5, 2.5)
    assert difference.top_k == 3 and "changed in 50.0% of 2 queries" in difference.summary()
    write_submission(second, {"1": [1, 2, 3]}, top_k=3)
    with pytest.raises(DataError, match=r"b\.csv: answers other queries than a\.csv: 2"):
        compare_submissions(first, second)
