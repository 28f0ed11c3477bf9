"""The content of the error browser: queries, candidates and the overview."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

import helpers
from helpers import made_run
from motret.data.features import FeatureConfig
from motret.ensemble import external
from motret.errors import DataError
from motret.evaluation import local_score, metrics
from motret.formats.queries import Query
from motret.report import browser
from motret.report.browser import FoldSimilarities
from motret.report.page import MemberRow

DATA, FOLDS = helpers.training_data(), helpers.folds()
CAPTIONS = DATA.training.captions


def facts(page) -> dict[str, str]:
    return dict(page.overview.facts)


# ---- out of fold


def test_the_out_of_fold_page_shows_the_local_score(tmp_path: Path) -> None:
    members = [made_run(tmp_path, "one"), made_run(tmp_path, "second", seed=5)]
    page = browser.page_of_runs(members, DATA, FOLDS)
    score = local_score.out_of_fold_score(members, FOLDS).score
    text = f"{score.mean:.3f} ± {score.error:.3f}"
    assert facts(page)["Local score, expected in pools of 10"] == text
    assert facts(page)["Queries"] == f"{sum(map(len, CAPTIONS))} captions of 20 held-out motions"
    recall = np.array(page.overview.recall)
    assert recall[-1] == pytest.approx(1)
    assert page.overview.chance[4] == 0.5  # each fold of ten motions is its own pool
    scores = [local_score.out_of_fold_score([run], FOLDS).score for run in members]
    assert page.overview.members == tuple(
        MemberRow(name, 0.5, f"{score.mean:.3f} ± {score.error:.3f}")
        for name, score in zip(("one", "second"), scores, strict=True)
    )
    assert page.title == "mean of 2 runs, out of fold"
    assert browser.page_of_runs(members[:1], DATA, FOLDS).overview.members == ()


def test_each_caption_of_a_held_out_motion_is_a_query_against_its_fold(tmp_path: Path) -> None:
    run = made_run(tmp_path, "one")
    similarities = browser.fold_similarities_of_runs([run])
    page = browser.page_of_folds("one", similarities, [], DATA, FOLDS)
    assert len(page.queries) == sum(map(len, CAPTIONS))
    fold = similarities[0]
    similarity = fold.sim_cm[4]
    query = page.queries[4]
    truth = fold.data_idx[fold.motion_idx[4]]
    assert (
        query.captions[0] in CAPTIONS[truth]
        and query.truth == DATA.training.ids[truth]
        and query.gallery == 10
    )
    assert [candidate.score for candidate in query.candidates] == pytest.approx(
        sorted(similarity, reverse=True)
    )
    for candidate in query.candidates:
        index = DATA.training.ids.index(candidate.motion)
        assert (
            candidate.captions == CAPTIONS[index] and candidate.path == DATA.training.paths[index]
        )
        assert candidate.score == pytest.approx(similarity[list(fold.data_idx).index(index)])
    assert query.rank == 1 + (similarity > similarity[fold.motion_idx[4]]).sum()
    assert {query.captions[0] for query in page.queries} == {
        caption for captions in CAPTIONS for caption in captions
    }


def test_members_are_z_scored_before_they_are_weighted(tmp_path: Path) -> None:
    first, second = made_run(tmp_path, "one"), made_run(tmp_path, "second", seed=5)
    mixed = browser.fold_similarities_of_runs([first, second], [3, 1])[0].sim_cm
    single = [browser.fold_similarities_of_runs([run])[0].sim_cm for run in (first, second)]
    np.testing.assert_allclose(mixed, 0.75 * single[0] + 0.25 * single[1], atol=1e-6)
    assert single[0].mean() == pytest.approx(0, abs=1e-6) and single[0].std() == pytest.approx(1)


def test_a_long_ranking_shows_the_ten_best_and_the_match() -> None:
    similarity = np.linspace(1, 0, 20)[None].repeat(20, axis=0)
    captions = tuple((f"motion {index}",) for index in range(20))
    data = helpers.training_data(captions)
    page = browser.page_of_folds(
        "x",
        [FoldSimilarities(similarity, np.arange(20), np.arange(20))],
        [],
        data,
        replace(FOLDS, count=1),
    )
    assert [candidate.rank for candidate in page.queries[16].candidates] == [*range(1, 11), 17]
    assert [candidate.rank for candidate in page.queries[3].candidates] == list(range(1, 11))
    assert page.queries[16].rank == 17


def test_of_many_queries_the_hardest_and_others_of_every_rank_are_listed() -> None:
    ranks = np.random.default_rng(0).permutation(np.arange(1000)) + 1
    query_idx, note = browser.choose_queries(ranks)
    assert len(set(query_idx)) == len(query_idx) == 200 and list(query_idx) == sorted(query_idx)
    listed = np.sort(ranks[query_idx])
    assert list(listed[100:]) == list(range(901, 1001))
    assert listed[0] == 1 and np.diff(listed[:100]).max() <= 10
    assert "200 of the 1000 queries are listed" in note
    assert browser.choose_queries(ranks[:200])[1] == ""


# ---- test


def make_queries(count: int, candidates: int) -> tuple[Query, ...]:
    numbers = tuple(range(1, candidates + 1))
    return tuple(
        Query(
            f"{query:02d}",
            (f"scene {query}", "again"),
            numbers,
            tuple(Path(f"{query}/motion_{number}.npy") for number in numbers),
        )
        for query in range(1, count + 1)
    )


def test_a_test_with_ground_truth_shows_score_recall_and_the_match() -> None:
    queries, truth = make_queries(3, 12), {"1": 2, "2": 12, "3": 1}
    similarities = [-np.arange(12.0)] * 3  # motion_1 first
    page = browser.page_of_test(
        "test", queries, similarities, [], FeatureConfig(fps=20, up="+z"), truth
    )
    assert [query.rank for query in page.queries] == [2, 12, 1]
    values = metrics.rank_value(np.array([1, 11, 0]))
    assert facts(page)["True score on these queries"].startswith(f"{values.mean():.3f} ± ")
    assert page.overview.recall[:2] == pytest.approx((1 / 3, 2 / 3)) and page.overview.chance[
        5
    ] == pytest.approx(0.5)
    assert (
        page.queries[0].candidates[1].captions == ("scene 1", "again")
        and page.queries[0].candidates[0].captions == ()
    )
    assert (page.config.fps, page.config.up) == (20, "+z")


def test_a_submission_is_shown_from_the_files_next_to_it(tmp_path: Path) -> None:
    queries, saved = make_queries(2, 3), tmp_path / "saved.csv"
    pairs = {
        "query": ["2", "2", "2", "1", "1", "1"],
        "candidate": [3, 1, 2, 1, 2, 3],
        "similarity": np.array([0.5, 0.1, 0.9, 3, 2, 1]),
    }
    np.savez(tmp_path / "saved.npz", **pairs)
    score = {"mean": 0.7, "error": 0.01, "motions": 9, "groups": 3}
    (tmp_path / "saved.json").write_text(
        json.dumps(
            {"members": [{"run": "one", "weight": 0.75, "local_score": score}, {"run": "two"}]}
        )
    )
    page = browser.page_of_submission(saved, queries, FeatureConfig(), {"2": 3})
    assert [[candidate.motion for candidate in query.candidates] for query in page.queries] == [
        ["motion_1", "motion_2", "motion_3"],
        ["motion_2", "motion_3", "motion_1"],
    ]
    assert (
        page.overview.members == (MemberRow("one", 0.75, "0.700 ± 0.010"), MemberRow("two", None))
        and page.queries[1].rank == 2
    )
    with pytest.raises(DataError, match=r"saved\.npz: no similarity of candidate 1 of query 3"):
        browser.page_of_submission(saved, make_queries(3, 3), FeatureConfig(), None)


def saved_submission(
    folder: Path,
    local: dict | None,
    similarities: Sequence[Sequence[np.ndarray]],
    weights: Sequence[float],
) -> Path:
    """Of two queries of three candidates, with these members."""
    named = [(f"member {number}", member) for number, member in enumerate(similarities)]
    external.save_similarities(
        folder / "saved.npz", make_queries(2, 3), [np.array([3.0, 2, 1])] * 2, named
    )
    members = [
        {"run": name, "weight": weight} for (name, _), weight in zip(named, weights, strict=True)
    ]
    (folder / "saved.json").write_text(json.dumps({"members": members, "local_score": local}))
    return folder / "saved.csv"


def test_the_overview_of_a_submission_has_local_and_true_score(tmp_path: Path) -> None:
    local = {"mean": 0.712, "error": 0.011, "motions": 90, "groups": 80, "by_fold": {"0": {}}}
    saved = saved_submission(tmp_path, local, [], [])
    page = browser.page_of_submission(saved, make_queries(2, 3), FeatureConfig(), {"1": 1, "2": 1})
    assert page.overview.facts[0] == ("Local score, expected on held-out motions", "0.712 ± 0.011")
    assert page.overview.facts[1][0] == "True score on these queries" and page.overview.large == 2
    unknown = browser.page_of_submission(saved, make_queries(2, 3), FeatureConfig(), None)
    assert unknown.overview.large == 1 and "True score on these queries" not in facts(unknown)
    saved = saved_submission(tmp_path, None, [], [])
    page = browser.page_of_submission(saved, make_queries(2, 3), FeatureConfig(), None)
    assert page.overview.facts[0] == (
        "Local score (a member has no out-of-fold predictions)",
        "not known",
    )


def test_disagreement_counts_the_members_with_a_weight(tmp_path: Path) -> None:
    up, down = np.array([1.0, 2, 3]), np.array([9.0, 5, -8])
    members = [[up, up], [2 * up, down], [down, down]]
    saved = saved_submission(tmp_path, None, members, [0.5, 0.5, 0.0])
    page = browser.page_of_submission(saved, make_queries(2, 3), FeatureConfig(), None)
    assert [query.disagreement for query in page.queries] == pytest.approx([0, 2])
    saved = saved_submission(tmp_path, None, members[:1], [1.0])
    assert [
        query.disagreement
        for query in browser.page_of_submission(
            saved, make_queries(2, 3), FeatureConfig(), None
        ).queries
    ] == [None, None]


def test_disagreement_is_one_minus_spearmans_correlation_over_all_pairs() -> None:
    members = [
        np.random.default_rng(seed).integers(0, 9, 12).astype(float) for seed in range(3)
    ]  # with ties
    pairs = [
        spearmanr(first, second).statistic for first, second in itertools.combinations(members, 2)
    ]
    assert browser.disagreement(members) == pytest.approx(1 - np.mean(pairs))
    assert browser.disagreement([members[0], np.ones(12)]) == 1
    assert browser.disagreement([np.ones(1), np.zeros(1)]) == 0


def test_a_test_without_ground_truth_shows_no_score() -> None:
    page = browser.page_of_test(
        "test", make_queries(2, 12), [np.arange(12.0)] * 2, [], FeatureConfig()
    )
    assert facts(page)["Ground truth"] == "not available" and not page.overview.recall
    assert [query.rank for query in page.queries] == [None, None]
    assert [candidate.motion for candidate in page.queries[0].candidates[:2]] == [
        "motion_12",
        "motion_11",
    ]


def test_queries_without_ground_truth_do_not_count() -> None:
    page = browser.page_of_test(
        "test", make_queries(2, 12), [-np.arange(12.0)] * 2, [], FeatureConfig(), {"2": 1}
    )
    assert facts(page)["True score on these queries"].startswith("1.000") and [
        query.rank for query in page.queries
    ] == [None, 1]


@pytest.mark.parametrize("truth", [None, {f"{query}": 20 for query in range(1, 241)}])
def test_a_large_test_is_shortened_with_a_note(truth: dict[str, int] | None) -> None:
    page = browser.page_of_test(
        "test", make_queries(240, 32), [-np.arange(32.0)] * 240, [], FeatureConfig(), truth
    )
    assert len(page.queries) == 200 and "200 of the 240 queries are listed" in page.overview.note
    assert {len(query.candidates) for query in page.queries} == {11 if truth else 10}
    assert not truth or {query.rank for query in page.queries} == {20}
