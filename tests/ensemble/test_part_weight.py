"""The similarity of parts that is added to that of the whole at test."""

from dataclasses import replace

import numpy as np
import pytest

import ensemble
import helpers
import train
import validate
from helpers import FOLDS, made_run, unit
from motret.data import dataset
from motret.ensemble.inference import Encoder
from motret.ensemble.members import Member
from motret.errors import RunError
from motret.evaluation import local_score
from motret.evaluation.z_score import ZScore
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.run import open_run


def part_vectors(rng, count, parts=5, dim=6) -> np.ndarray:
    return unit(rng, count * parts, dim).reshape(count, parts, dim)


def part_similarity(text, named, motion) -> np.ndarray:
    """What the parts alone add at weight 1."""
    nothing = [np.zeros((len(one), 2)) for one in (text, motion)]
    return (
        oof.weighted_text_vectors(nothing[0], text, named, 1.0)
        @ oof.concat_part_vectors(nothing[1], motion).T
    )


def test_parts_are_compared_where_the_caption_names_them():
    rng = np.random.default_rng(0)
    text, motion, named = part_vectors(rng, 4), part_vectors(rng, 3), rng.random((4, 5)) < 0.5
    named[2] = False
    wanted = np.zeros((4, 3))
    for caption in range(4):
        for place in range(3):
            cosines = [
                text[caption, part] @ motion[place, part]
                for part in range(5)
                if named[caption, part]
            ]
            wanted[caption, place] = np.mean(cosines) if cosines else 0.0
    np.testing.assert_allclose(part_similarity(text, named, motion), wanted, atol=1e-6)


def test_a_part_no_caption_names_changes_nothing():
    rng = np.random.default_rng(1)
    text, motion, named = part_vectors(rng, 4), part_vectors(rng, 3), np.ones((4, 5), dtype=bool)
    named[:, 3] = False
    before = part_similarity(text, named, motion)
    text[:, 3] = 9
    motion[:, 3] = -9
    np.testing.assert_allclose(part_similarity(text, named, motion), before)


def made_sgar(folder, name, helpful: bool):
    """A run whose parts know where each caption belongs, or only seem to."""
    run = made_run(folder, name)
    run = replace(run, config=replace(run.config, parts=replace(run.config.parts, use_gar=True)))
    rng = np.random.default_rng(3)
    for fold in (0, 1):
        out = oof.load_out_of_fold(run, fold)
        parts = part_vectors(rng, len(out.ids))
        said = parts[out.motion_idx] if helpful else part_vectors(rng, len(out.motion_idx))
        kept = replace(
            out,
            motion_parts=parts,
            text_parts=said,
            named=np.ones((len(out.motion_idx), 5), dtype=bool),
        )
        oof.save_out_of_fold(run.fold_dir(fold) / "oof.npz", kept)
    return run


def test_the_weight_is_chosen_out_of_fold_and_0_where_parts_do_not_help(tmp_path):
    helpful, useless = made_sgar(tmp_path, "helpful", True), made_sgar(tmp_path, "useless", False)
    chosen = local_score.with_part_weight(helpful, FOLDS, "auto")
    assert chosen.part_weight in local_score.PART_WEIGHTS
    assert local_score.paired_difference(chosen, helpful, FOLDS).mean > 0
    assert (
        local_score.out_of_fold_score([chosen], FOLDS).score.mean
        > local_score.out_of_fold_score([helpful], FOLDS).score.mean
    )
    assert local_score.with_part_weight(useless, FOLDS, "auto").part_weight == 0
    assert local_score.with_part_weight(useless, FOLDS, 0.3).part_weight == 0.3


def test_a_run_without_parts_stays_as_it_is_and_one_that_kept_none_is_refused(tmp_path):
    plain = made_run(tmp_path, "plain")
    assert local_score.with_part_weight(plain, FOLDS, 0.5) is plain
    older = replace(
        plain, config=replace(plain.config, parts=replace(plain.config.parts, use_gar=True))
    )
    with pytest.raises(RunError, match="plain: kept no out-of-fold embeddings of its parts"):
        local_score.with_part_weight(older, FOLDS, "auto")


def test_out_of_fold_results_keep_their_parts(tmp_path):
    run = made_sgar(tmp_path, "kept", True)
    out = oof.load_out_of_fold(run, 0)
    assert out.named.all() and out.motion_parts.shape == (len(out.ids), 5, 6)
    whole = out.similarity()
    np.testing.assert_allclose(
        out.similarity(0.5),
        whole + 0.5 * part_similarity(out.text_parts, out.named, out.motion_parts),
        atol=1e-6,
    )


def test_the_difference_of_two_runs_is_paired(tmp_path):
    one, other = made_run(tmp_path, "one"), made_run(tmp_path, "other", seed=5)
    apart = local_score.paired_difference(one, other, FOLDS)
    scores = [local_score.out_of_fold_score([run], FOLDS).score for run in (one, other)]
    assert apart.mean == pytest.approx(scores[0].mean - scores[1].mean)
    assert (
        local_score.paired_difference(one, one, FOLDS).mean
        == local_score.paired_difference(one, one, FOLDS).error
        == 0
    )
    assert local_score.paired_difference(other, one, FOLDS).mean == pytest.approx(-apart.mean)


def test_queries_are_ranked_with_the_parts_they_name(tmp_path, capsys):
    """The held-out motions as queries of a test folder: the same similarities as out of fold, and
    the weight counts.
    """
    data = helpers.challenge()
    assert train.main(["sgar", *helpers.train_flags(tmp_path, "parts", fold=0, epochs=1)[1:]]) == 0
    queries = tmp_path / "val"
    drawn = [
        "make_batches",
        *helpers.places(data),
        "--queries",
        "6",
        "--candidates",
        "11",
        "--out",
        str(queries),
    ]
    assert validate.main(drawn) == 0
    run = open_run(tmp_path / "parts")
    training = dataset.load_training(run.config.data, 1)
    test = dataset.load_test(queries, training.store.config, run.config.data, 1)
    out: OutOfFold = oof.load_out_of_fold(run, 0)
    captions = [caption for row in out.data_idx for caption in training.training.captions[row]]
    assert out.named.any() and not out.named.all()
    checked = 0
    for weight in (0.0, 2.0):
        with_weight = replace(run, part_weight=weight)
        member = Member("parts", {0: with_weight}, ((with_weight, 0),), ("parts",))
        encoder = Encoder(run.config.machine, tmp_path, training.training.captions)
        (embeddings,) = encoder.predict_test(member, test, with_bank=False)
        of_queries = zip(embeddings.query_similarity(), test.candidate_idx, strict=True)
        for query, (scores, candidates) in zip(test.queries, of_queries, strict=True):
            caption_idx = captions.index(query.captions[0])
            similarity = out.similarity(weight)
            names = [path.resolve().stem for path in query.paths]
            expected = [similarity[caption_idx, list(out.ids).index(name)] for name in names]
            np.testing.assert_allclose(
                scores[candidates], ZScore.of(similarity)(np.array(expected)), atol=2e-3
            )
            checked += 1
    assert checked == 12
    ranked = [
        "--runs",
        "parts",
        "--fold",
        "0",
        "--out_dir",
        str(tmp_path),
        "--submissions_dir",
        str(tmp_path / "subs"),
        "--test_dir",
    ]
    capsys.readouterr()
    assert (
        ensemble.main([*helpers.places(data), *ranked, str(queries), "--part_weight", "0.7"]) == 0
    )
    assert "6 queries ranked by parts" in capsys.readouterr().out
    scored = [
        *helpers.places(data),
        "--runs",
        "parts",
        "--out_dir",
        str(tmp_path),
        "--part_weight",
        "0.7",
        "--against",
        "parts",
    ]
    assert validate.main(["oof", *scored]) == 0
    said = capsys.readouterr().out
    assert "part weight: parts 0.7" in said and "difference: to parts, motion by motion" in said
