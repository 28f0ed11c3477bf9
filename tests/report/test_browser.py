"""What the error browser is told: queries, their candidates, and the numbers of its overview."""

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


def facts(report) -> dict[str, str]:
    return dict(report.overview.facts)


# ---- out of fold


def test_the_out_of_fold_report_tells_the_local_score(tmp_path: Path) -> None:
    members = [made_run(tmp_path, "one"), made_run(tmp_path, "other", seed=5)]
    report = browser.page_of_runs(members, DATA, FOLDS)
    score = local_score.out_of_fold_score(members, FOLDS).score
    assert facts(report)["Local score, expected in pools of 10"] == f"{score.mean:.3f} ± {score.error:.3f}"
    assert facts(report)["Queries"] == f"{sum(map(len, CAPTIONS))} captions of 20 held-out motions"
    recall = np.array(report.overview.recall)
    assert recall[-1] == pytest.approx(1) and report.overview.chance[4] == 0.5  # ten motions a fold, each its own pool
    alone = [local_score.out_of_fold_score([run], FOLDS).score for run in members]
    assert report.overview.members == tuple(
        MemberRow(name, 0.5, f"{own.mean:.3f} ± {own.error:.3f}") for name, own in zip(("one", "other"), alone, strict=True)
    )
    assert report.title == "mean of 2 runs, out of fold"
    assert browser.page_of_runs(members[:1], DATA, FOLDS).overview.members == ()


def test_each_caption_of_a_held_out_motion_is_a_query_against_its_fold(tmp_path: Path) -> None:
    run = made_run(tmp_path, "one")
    answers = browser.fold_similarities_of_runs([run])
    report = browser.page_of_folds("one", answers, [], DATA, FOLDS)
    assert len(report.queries) == sum(map(len, CAPTIONS))
    own = answers[0]
    similarity = own.similarity[4]
    query = report.queries[4]
    right = own.row[own.motion_idx[4]]
    assert query.captions[0] in CAPTIONS[right] and query.truth == DATA.training.ids[right] and query.gallery == 10
    assert [candidate.score for candidate in query.candidates] == pytest.approx(sorted(similarity, reverse=True))
    for candidate in query.candidates:
        row = DATA.training.ids.index(candidate.motion)
        assert candidate.captions == CAPTIONS[row] and candidate.path == DATA.training.paths[row]
        assert candidate.score == pytest.approx(similarity[list(own.row).index(row)])
    assert query.rank == 1 + (similarity > similarity[own.motion_idx[4]]).sum()
    assert {query.captions[0] for query in report.queries} == {caption for own in CAPTIONS for caption in own}


def test_weights_weigh_the_members_on_one_scale(tmp_path: Path) -> None:
    one, other = made_run(tmp_path, "one"), made_run(tmp_path, "other", seed=5)
    mixed = browser.fold_similarities_of_runs([one, other], [3, 1])[0].similarity
    alone = [browser.fold_similarities_of_runs([run])[0].similarity for run in (one, other)]
    np.testing.assert_allclose(mixed, 0.75 * alone[0] + 0.25 * alone[1], atol=1e-6)
    assert alone[0].mean() == pytest.approx(0, abs=1e-6) and alone[0].std() == pytest.approx(1)


def test_of_a_long_ranking_the_ten_best_and_the_right_one_are_shown() -> None:
    similarity = np.linspace(1, 0, 20)[None].repeat(20, axis=0)
    captions = tuple((f"motion {row}",) for row in range(20))
    data = helpers.training_data(captions)
    report = browser.page_of_folds("x", [FoldSimilarities(similarity, np.arange(20), np.arange(20))], [], data, replace(FOLDS, count=1))
    assert [candidate.rank for candidate in report.queries[16].candidates] == [*range(1, 11), 17]
    assert [candidate.rank for candidate in report.queries[3].candidates] == list(range(1, 11))
    assert report.queries[16].rank == 17


def test_of_many_queries_the_hardest_are_listed_and_others_of_every_rank() -> None:
    ranks = np.random.default_rng(0).permutation(np.arange(1000)) + 1
    chosen, note = browser.choose_queries(ranks)
    assert len(set(chosen)) == len(chosen) == 200 and list(chosen) == sorted(chosen)
    kept = np.sort(ranks[chosen])
    assert list(kept[100:]) == list(range(901, 1001))
    assert kept[0] == 1 and np.diff(kept[:100]).max() <= 10
    assert "Of the 1000 queries 200 are listed" in note
    assert browser.choose_queries(ranks[:200])[1] == ""


# ---- test


def asked(count: int, candidates: int) -> tuple[Query, ...]:
    numbers = tuple(range(1, candidates + 1))
    return tuple(
        Query(f"{query:02d}", (f"scene {query}", "again"), numbers, tuple(Path(f"{query}/motion_{number}.npy") for number in numbers))
        for query in range(1, count + 1)
    )


def test_a_ranked_test_with_its_truth_tells_score_recall_and_the_right_motion() -> None:
    queries, truth = asked(3, 12), {"1": 2, "2": 12, "3": 1}
    similarities = [-np.arange(12.0)] * 3  # motion_1 first
    report = browser.page_of_test("test", queries, similarities, [], FeatureConfig(fps=20, up="+z"), truth)
    assert [query.rank for query in report.queries] == [2, 12, 1]
    values = metrics.rank_value(np.array([1, 11, 0]))
    assert facts(report)["True score, on these queries"].startswith(f"{values.mean():.3f} ± ")
    assert report.overview.recall[:2] == pytest.approx((1 / 3, 2 / 3)) and report.overview.chance[5] == pytest.approx(0.5)
    assert report.queries[0].candidates[1].captions == ("scene 1", "again") and report.queries[0].candidates[0].captions == ()
    assert (report.config.fps, report.config.up) == (20, "+z")


def test_a_submission_is_shown_by_what_is_kept_beside_it(tmp_path: Path) -> None:
    queries, kept = asked(2, 3), tmp_path / "kept.csv"
    pairs = {"query": ["2", "2", "2", "1", "1", "1"], "candidate": [3, 1, 2, 1, 2, 3], "similarity": np.array([0.5, 0.1, 0.9, 3, 2, 1])}
    np.savez(tmp_path / "kept.npz", **pairs)
    alone = {"mean": 0.7, "error": 0.01, "motions": 9, "groups": 3}
    (tmp_path / "kept.json").write_text(json.dumps({"members": [{"run": "one", "weight": 0.75, "local_score": alone}, {"run": "two"}]}))
    report = browser.page_of_submission(kept, queries, FeatureConfig(), {"2": 3})
    assert [[candidate.motion for candidate in query.candidates] for query in report.queries] == [
        ["motion_1", "motion_2", "motion_3"],
        ["motion_2", "motion_3", "motion_1"],
    ]
    assert report.overview.members == (MemberRow("one", 0.75, "0.700 ± 0.010"), MemberRow("two", None)) and report.queries[1].rank == 2
    with pytest.raises(DataError, match=r"kept\.npz: no similarity of candidate 1 of query 3"):
        browser.page_of_submission(kept, asked(3, 3), FeatureConfig(), None)


def kept_submission(folder: Path, local: dict | None, alone: Sequence[Sequence[np.ndarray]], weights: Sequence[float]) -> Path:
    """Of two queries of three candidates, with these members."""
    named = [(f"member {number}", own) for number, own in enumerate(alone)]
    external.save_similarities(folder / "kept.npz", asked(2, 3), [np.array([3.0, 2, 1])] * 2, named)
    members = [{"run": name, "weight": weight} for (name, _), weight in zip(named, weights, strict=True)]
    (folder / "kept.json").write_text(json.dumps({"members": members, "local_score": local}))
    return folder / "kept.csv"


def test_the_head_of_a_submission_tells_local_and_true_score_by_their_names(tmp_path: Path) -> None:
    local = {"mean": 0.712, "error": 0.011, "motions": 90, "groups": 80, "by_fold": {"0": {}}}
    kept = kept_submission(tmp_path, local, [], [])
    report = browser.page_of_submission(kept, asked(2, 3), FeatureConfig(), {"1": 1, "2": 1})
    assert report.overview.facts[0] == ("Local score, expected on held-out motions", "0.712 ± 0.011")
    assert report.overview.facts[1][0] == "True score, on these queries" and report.overview.large == 2
    unknown = browser.page_of_submission(kept, asked(2, 3), FeatureConfig(), None)
    assert unknown.overview.large == 1 and "True score, on these queries" not in facts(unknown)
    kept = kept_submission(tmp_path, None, [], [])
    report = browser.page_of_submission(kept, asked(2, 3), FeatureConfig(), None)
    assert report.overview.facts[0] == ("Local score, since a member has no out-of-fold part", "not known")


def test_queries_of_a_submission_tell_how_much_its_weighty_members_disagree(tmp_path: Path) -> None:
    up, down = np.array([1.0, 2, 3]), np.array([9.0, 5, -8])
    members = [[up, up], [2 * up, down], [down, down]]
    kept = kept_submission(tmp_path, None, members, [0.5, 0.5, 0.0])  # what has no weight has no say
    report = browser.page_of_submission(kept, asked(2, 3), FeatureConfig(), None)
    assert [query.disagreement for query in report.queries] == pytest.approx([0, 2])
    kept = kept_submission(tmp_path, None, members[:1], [1.0])
    assert [query.disagreement for query in browser.page_of_submission(kept, asked(2, 3), FeatureConfig(), None).queries] == [None, None]


def test_disagreement_is_one_less_spearmans_correlation_over_all_pairs_of_members() -> None:
    members = [np.random.default_rng(seed).integers(0, 9, 12).astype(float) for seed in range(3)]  # with ties
    pairs = [spearmanr(one, other).statistic for one, other in itertools.combinations(members, 2)]
    assert browser.disagreement(members) == pytest.approx(1 - np.mean(pairs))
    assert browser.disagreement([members[0], np.ones(12)]) == 1
    assert browser.disagreement([np.ones(1), np.zeros(1)]) == 0


def test_a_test_without_truth_tells_none() -> None:
    report = browser.page_of_test("test", asked(2, 12), [np.arange(12.0)] * 2, [], FeatureConfig())
    assert facts(report)["Right answers"] == "not known" and not report.overview.recall
    assert [query.rank for query in report.queries] == [None, None]
    assert [candidate.motion for candidate in report.queries[0].candidates[:2]] == ["motion_12", "motion_11"]


def test_queries_whose_answer_is_not_told_count_for_nothing() -> None:
    report = browser.page_of_test("test", asked(2, 12), [-np.arange(12.0)] * 2, [], FeatureConfig(), {"2": 1})
    assert facts(report)["True score, on these queries"].startswith("1.000") and [query.rank for query in report.queries] == [None, 1]


@pytest.mark.parametrize("truth", [None, {f"{query}": 20 for query in range(1, 241)}])
def test_a_large_test_is_shortened_aloud(truth: dict[str, int] | None) -> None:
    report = browser.page_of_test("test", asked(240, 32), [-np.arange(32.0)] * 240, [], FeatureConfig(), truth)
    assert len(report.queries) == 200 and "Of the 240 queries 200 are listed" in report.overview.note
    assert {len(query.candidates) for query in report.queries} == {11 if truth else 10}
    assert not truth or {query.rank for query in report.queries} == {20}
