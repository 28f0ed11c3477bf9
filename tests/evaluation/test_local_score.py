"""The local score of runs, one scale for several, and which runs are selected."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import DATA, FOLDS, made_run, unit
from motret.errors import RunError
from motret.evaluation import local_score, metrics
from motret.evaluation.z_score import ZScore
from motret.formats import submission
from motret.formats.queries import Query
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.selection import select_runs


def select(folder, *names, data=DATA, folds=FOLDS):
    return [run.name for run in select_runs(names, folder, data, folds)]


# ---- scale


def test_a_scale_gives_its_gallery_mean_zero_and_deviation_one():
    sim = np.random.default_rng(0).normal(3, 0.2, size=(8, 5))
    standard = ZScore.of(sim)(sim)
    assert standard.mean() == pytest.approx(0, abs=1e-12) and standard.std() == pytest.approx(1)
    np.testing.assert_allclose(
        ZScore.of(sim)(sim + 0.2) - standard, 0.2 / sim.std()
    )  # constants of the member, not of the scaled array


def test_a_constant_member_adds_nothing():
    standard = ZScore.of(np.full((3, 4), 0.7))(np.full((3, 4), 0.7))
    assert np.isfinite(standard).all() and np.ptp(standard) == 0


def test_the_scale_of_products_follows_from_the_vectors():
    rng = np.random.default_rng(2)
    text, motion = unit(rng, 30, 6), unit(rng, 12, 6) + np.float32(0.3)
    scale, dense = ZScore.of_vectors(text, motion), ZScore.of((text @ motion.T).astype(np.float64))
    assert (scale.mean, scale.deviation) == pytest.approx((dense.mean, dense.deviation), rel=1e-5)
    assert 0 < ZScore.of_vectors(np.zeros((3, 2)), np.ones((4, 2))).deviation < 1e-6


# ---- local score


def dense_table(sim, motion_idx):
    """Recalls in both directions from the whole matrix."""
    motion_ranks = [
        (sim[motion_idx != motion, motion] > sim[motion_idx == motion, motion].max()).sum()
        for motion in range(sim.shape[1])
    ]
    better = (sim > sim[np.arange(len(motion_idx)), motion_idx][:, None]).sum(axis=1)
    return {
        "text_to_motion": metrics.recalls(better),
        "motion_to_text": metrics.recalls(np.array(motion_ranks)),
    }


@pytest.mark.parametrize("chunk_size", [3, 512])
def test_the_local_score_in_chunks_is_that_of_the_whole_matrix(tmp_path, monkeypatch, chunk_size):
    """Of one member and of the mean of two, one of them seven times as large: the score of each
    motion, and recalls in both directions.
    """
    monkeypatch.setattr(metrics, "CHUNK_SIZE", chunk_size)
    first, second = (
        made_run(tmp_path, "one", folds=(0,)),
        made_run(tmp_path, "other", seed=5, folds=(0,)),
    )
    out = oof.load_out_of_fold(second, 0)
    oof.save_out_of_fold(second.fold_dir(0) / "oof.npz", replace(out, text=out.text * 7))
    for members in ([first], [first, second]):
        sim, out = local_score.fold_similarity(members, 0)
        local = local_score.out_of_fold_score(members, FOLDS)
        values = metrics.caption_scores(sim, out.motion_idx)
        assert (
            local.score
            == local.by_fold[0]
            == metrics.cluster_robust_mean(values, FOLDS.group[out.data_idx])
        )
        expected = dense_table(sim, out.motion_idx)
        for way, table in local.retrieval.items():
            assert table == pytest.approx(expected[way])


def test_captions_that_fit_two_motions_equally_average_both_ranks(tmp_path):
    """Motions with one and the same vector tie, whatever scale similarities are on."""
    run = made_run(tmp_path, "one", folds=(0,))
    out = oof.load_out_of_fold(run, 0)
    motion, text = np.eye(10, 6, dtype=np.float32), np.eye(10, 6, dtype=np.float32)[out.motion_idx]
    motion[5:], text = (
        motion[:5],
        text + np.eye(10, 6, dtype=np.float32)[out.motion_idx % 5] * (out.motion_idx >= 5)[:, None],
    )
    oof.save_out_of_fold(run.fold_dir(0) / "oof.npz", replace(out, motion=motion, text=text))
    assert local_score.out_of_fold_score([run], FOLDS).score.mean == pytest.approx(
        metrics.expected_score(np.array([0]), np.array([1]), 10, 10)[0]
    )


def test_no_matrix_of_all_similarities_is_made(tmp_path, monkeypatch):
    first, second = made_run(tmp_path, "one"), made_run(tmp_path, "other", seed=5)

    def refuse(*_args):
        raise AssertionError("all similarities at once")

    monkeypatch.setattr(OutOfFold, "similarity", refuse)
    local_score.out_of_fold_score([first, second], FOLDS)
    local_score.paired_difference(first, second, FOLDS)


def test_the_local_score_is_that_of_the_embeddings_each_fold_its_own_gallery(tmp_path):
    run = made_run(tmp_path, "one")
    local = local_score.out_of_fold_score([run], FOLDS)
    values = []
    for fold in (0, 1):
        out = oof.load_out_of_fold(run, fold)
        scores = metrics.caption_scores(out.text @ out.motion.T, out.motion_idx)
        assert (
            local.by_fold[fold].mean == pytest.approx(scores.mean())
            and local.by_fold[fold].motions == 10
        )
        values.append(scores)
    whole = metrics.cluster_robust_mean(np.concatenate(values), np.arange(20))
    assert local.score.mean == pytest.approx(whole.mean) and local.score.error == pytest.approx(
        whole.error
    )
    assert 0 < local.score.mean < 1
    assert f"one: score {whole} (20 motions in 20 groups, 2 folds, pools of 10)" == local.summary(
        "one"
    )


def test_motions_of_one_group_widen_the_standard_error_together(tmp_path):
    run = made_run(tmp_path, "one")
    grouped = replace(FOLDS, group=(np.arange(20) // 10).astype(str))
    scores = [
        local_score.out_of_fold_score([run], fold_table).score for fold_table in (FOLDS, grouped)
    ]
    assert scores[0].mean == scores[1].mean and (scores[0].groups, scores[1].groups) == (20, 2)


def test_recalls_are_weighted_by_captions(tmp_path):
    uneven = replace(FOLDS, fold=(np.arange(20) >= 14).astype(int))
    run = made_run(tmp_path, "one", found=uneven)
    local = local_score.out_of_fold_score([run], uneven)
    tables, weights = [], []
    for fold in (0, 1):
        out = oof.load_out_of_fold(run, fold)
        tables.append(dense_table(out.similarity(), out.motion_idx)["text_to_motion"]["R@1"])
        weights.append(len(out.motion_idx))
    assert weights[0] != weights[1] and tables[0] != tables[1]
    assert local.retrieval["text_to_motion"]["R@1"] == pytest.approx(
        np.dot(tables, weights) / sum(weights)
    )


def test_a_mean_of_equal_members_scores_what_the_member_does(tmp_path):
    first, same, second = (
        made_run(tmp_path, "one"),
        made_run(tmp_path, "again"),
        made_run(tmp_path, "other", seed=5),
    )
    single = local_score.out_of_fold_score([first], FOLDS)
    mean = local_score.out_of_fold_score([first, same], FOLDS)
    assert (
        mean.score.mean == pytest.approx(single.score.mean)
        and mean.by_fold.keys() == single.by_fold.keys()
    )
    assert local_score.out_of_fold_score([first, second], FOLDS).score.mean != pytest.approx(
        single.score.mean
    )


def test_members_are_averaged_on_one_scale_however_large_each_is(tmp_path):
    """The mean of standardised similarities: a member whose similarities are squeezed tenfold
    counts as much as before.
    """
    first, second = made_run(tmp_path, "one"), made_run(tmp_path, "other", seed=5)
    before = local_score.out_of_fold_score([first, second], FOLDS).score.mean
    for fold in (0, 1):
        out = oof.load_out_of_fold(second, fold)
        oof.save_out_of_fold(second.fold_dir(fold) / "oof.npz", replace(out, text=out.text / 10))
    assert local_score.out_of_fold_score([first, second], FOLDS).score.mean == pytest.approx(before)


def test_only_folds_that_all_members_have_finished_are_scored(tmp_path):
    whole, part, rest = (
        made_run(tmp_path, "whole"),
        made_run(tmp_path, "part", folds=(1,)),
        made_run(tmp_path, "rest", folds=(0,)),
    )
    assert local_score.out_of_fold_score([whole, part], FOLDS).by_fold.keys() == {1}
    with pytest.raises(RunError, match="part, rest: no fold that all of them have finished"):
        local_score.out_of_fold_score([part, rest], FOLDS)


# ---- which runs


def test_by_default_every_finished_run_of_this_data_and_these_folds_is_selected(tmp_path):
    for name, made in {
        "b": {},
        "a": {"full": True},
        "partial": {"folds": (0,)},
        "only-full": {"folds": (), "full": True},
    }.items():
        made_run(tmp_path, name, **made)
    made_run(tmp_path, "data", data=replace(DATA, fingerprint="data-b"))
    made_run(tmp_path, "folds", found=replace(FOLDS, hash="folds-b"))
    assert select(tmp_path) == ["a", "b"]


def test_a_named_run_may_be_partial_and_is_named_by_path_or_name(tmp_path):
    made_run(tmp_path, "whole")
    part = made_run(tmp_path, "part", folds=(1,))
    assert select(tmp_path, "part", str(tmp_path / "whole")) == ["part", "whole"]
    assert part.finished_folds() == [1]


def test_a_named_run_of_other_data_or_folds_is_refused(tmp_path):
    made_run(tmp_path, "data", data=replace(DATA, fingerprint="data-b"))
    made_run(tmp_path, "folds", found=replace(FOLDS, hash="folds-b"))
    for name, there in (("data", "data-b"), ("folds", "folds-b")):
        with pytest.raises(
            RunError, match=rf"{name}: was trained on other {name} \({there}, now {name}-a\)"
        ):
            select(tmp_path, name)
    with pytest.raises(RunError, match="leave it out of --run, or"):
        select_runs(["data"], tmp_path, DATA, FOLDS, flag="--run")


def test_no_run_to_select_is_an_error_that_says_why(tmp_path):
    with pytest.raises(RunError, match=r"holds no run \(train one"):
        select(tmp_path)
    made_run(tmp_path, "partial", folds=(0,))
    with pytest.raises(RunError, match="none of its 1 runs is finished"):
        select(tmp_path)
    with pytest.raises(RunError, match="is no run"):
        select(tmp_path, "nobody")


# ---- ranking


def queries(*candidates):
    return tuple(
        Query(str(number), ("text",), scores, ())
        for number, scores in enumerate(candidates, start=1)
    )


def test_candidates_are_ranked_by_similarity_under_their_own_numbers():
    test = SimpleNamespace(queries=queries((1, 2, 5, 9), (3, 4)))
    ranked = submission.rank_candidates(
        test.queries, [np.array([0.1, 0.9, -0.3, 0.5]), np.array([0.2, 0.1])]
    )
    assert ranked == {"1": [2, 9, 1, 5], "2": [3, 4]}


def test_ties_keep_the_order_of_the_files():
    test = SimpleNamespace(queries=queries(tuple(range(1, 33))))
    assert submission.rank_candidates(test.queries, [np.zeros(32)]) == {"1": list(range(1, 33))}
