"""Ensembles fitted on arrays: nested choices, options that must help, neither models nor torch."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import unit
from motret.config import base
from motret.config.scripts import EnsembleConfig
from motret.ensemble import fit, query_bank
from motret.ensemble.fit import FittedEnsemble, FoldSet, NestedFolds
from motret.ensemble.galleries import (
    BankEmbeddings,
    ExternalGallery,
    FoldGallery,
    MemberGallery,
    OofGalleries,
    ViewEmbeddings,
)
from motret.ensemble.weights import WeightSearch
from motret.errors import ConfigError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks

N_MOTIONS, N_CAPTIONS, DIM = 12, 20, 6
MOTION_IDX = np.sort(np.concatenate([np.arange(N_MOTIONS), np.arange(N_CAPTIONS - N_MOTIONS)]))


def config(**values: object) -> EnsembleConfig:
    return base.build_config(EnsembleConfig, {"query_bank": "off", "views": "none"} | values)


def embeddings(rng: np.random.Generator, signal: float) -> tuple[np.ndarray, np.ndarray]:
    """Captions (C, d) near their motions (M, d), `signal` times as near as noise."""
    motion = unit(rng, N_MOTIONS, DIM)
    return signal * motion[MOTION_IDX] + unit(rng, N_CAPTIONS, DIM), motion


def member_gallery(
    seed: int, fold: int, signal: float = 1.0, view_signal: float | None = None
) -> MemberGallery:
    """A gallery of made-up embeddings, with a query bank, and a view where it has a signal."""
    rng = np.random.default_rng([seed, fold])
    text, motion = embeddings(rng, signal)
    bank = BankEmbeddings(unit(rng, 30, DIM))
    if view_signal is None:
        return MemberGallery(text, motion, bank=bank)
    view_text, view_motion = embeddings(rng, view_signal)
    deviation = float((view_text @ view_motion.T).std() / (text @ motion.T).std())
    views = {"speed": (ViewEmbeddings(view_text, view_motion, deviation, "made up"),)}
    bank = replace(bank, views={"speed": (unit(rng, 30, DIM),)})
    return MemberGallery(text, motion, views, bank)


def galleries(
    signals: dict[str, float], n_folds: int = 4, view_signal: float | None = None
) -> OofGalleries:
    """Members by name and signal; the groups of a fold's motions are pairs."""
    folds = {
        fold: FoldGallery(
            MOTION_IDX,
            np.array([f"{fold} {motion // 2}" for motion in range(N_MOTIONS)]),
            tuple(
                member_gallery(seed, fold, signal, view_signal)
                for seed, signal in enumerate(signals.values())
            ),
        )
        for fold in range(n_folds)
    }
    return OofGalleries(tuple(signals), folds)


def with_gallery(
    oof: OofGalleries, fold: int, member_idx: int, gallery: MemberGallery | ExternalGallery
) -> OofGalleries:
    """The same with another gallery of one member in one fold."""
    members = list(oof.folds[fold].members)
    members[member_idx] = gallery
    return replace(oof, folds={**oof.folds, fold: replace(oof.folds[fold], members=tuple(members))})


def fit_all(oof: OofGalleries, **values: object) -> FittedEnsemble:
    weights = fit.fit_weights(oof, config(**values))
    return fit.fit_ensemble(oof.select(weights.member_idx), weights, config(**values))


# ---- weights


def test_each_fold_is_scored_by_weights_fitted_on_the_others() -> None:
    oof = galleries({"a": 1.0, "b": 2.0, "c": 0.0})
    ensemble, weights = fit_all(oof), fit.fit_weights(oof, config())
    search = WeightSearch(weights.pairs)
    for fold, ranks in zip(ensemble.folds, ensemble.ensemble_ranks, strict=True):
        of_others = search.fit([other for other in range(4) if other != fold])
        np.testing.assert_array_equal(ranks.values(), weights.pairs[fold].ranks(of_others).values())
        assert ensemble.local.by_fold[fold].mean == pytest.approx(ranks.values().mean())
    np.testing.assert_array_equal(ensemble.weights, search.fit(range(4)))
    assert ensemble.local.score == gallery_ranks.mean_score(ensemble.ensemble_ranks)


def test_a_fold_does_not_change_the_weights_that_score_it() -> None:
    oof = galleries({"a": 2.0, "b": 0.5})
    gallery = oof.folds[3].members[1]
    assert isinstance(gallery, MemberGallery)
    perfect = with_gallery(oof, 3, 1, replace(gallery, text=gallery.motion[MOTION_IDX]))
    before, after = fit_all(oof, fold=3), fit_all(perfect, fold=3)
    np.testing.assert_array_equal(before.weights, after.weights)
    assert after.folds == (3,) and gallery_ranks.motion_values(after.member_ranks[1]).mean() > 0.99


def test_members_with_equal_similarities_are_one_member() -> None:
    oof = galleries({"a": 1.0, "b": 1.5})
    before = fit_all(oof)
    folds = {
        fold: replace(
            gallery,
            members=(*gallery.members, ExternalGallery(3 * gallery.members[0].similarity() + 1)),
        )
        for fold, gallery in oof.folds.items()
    }
    again = OofGalleries((*oof.names, "a again"), folds)
    assert fit.fit_weights(again, config()).member_idx == (0, 1)
    after = fit_all(again)
    np.testing.assert_array_equal(before.weights, after.weights)
    assert after.names == ("a", "b") and before.local.score == after.local.score


def test_equal_weights_may_be_requested() -> None:
    assert list(fit_all(galleries({"a": 3.0, "b": 0.0}), weights="equal").weights) == [0.5, 0.5]


def test_one_fold_leaves_weights_equal_and_tries_nothing() -> None:
    ensemble = fit_all(
        galleries({"a": 3.0, "b": 0.0}, n_folds=1, view_signal=3.0), views="auto", query_bank="auto"
    )
    assert list(ensemble.weights) == [0.5, 0.5] and ensemble.folds == (0,)
    assert ensemble.views == () and ensemble.beta is None


def test_a_member_without_a_weight_in_any_fit_is_not_used() -> None:
    weights = fit.fit_weights(galleries({"a": 4.0, "b": 0.0, "c": 0.0}), config())
    assert weights.used[0] and not weights.used.all()


def test_each_fold_is_fitted_on_the_others_and_the_ensemble_on_all() -> None:
    nested = NestedFolds.of([0, 1, 2], None)
    assert nested.fitted_on == {0: (1, 2), 1: (0, 2), 2: (0, 1)} and nested.final == (0, 1, 2)
    assert NestedFolds.of([0, 1, 2], 1) == NestedFolds({1: (0, 2)}, (0, 2))
    assert NestedFolds.of([5], None) == NestedFolds({5: ()}, ())
    with pytest.raises(
        ConfigError, match=r"--fold: fold 4 is not finished in all members .*give one of 0, 2"
    ):
        NestedFolds.of([0, 2], 4)


# ---- views


def test_a_view_that_helps_is_taken_and_scored_as_it_is() -> None:
    oof = galleries({"a": 1.0, "b": 1.0}, view_signal=3.0)
    ensemble = fit_all(oof, views="auto", weights="equal")
    assert ensemble.views == ("speed",)
    for fold, ranks in zip(ensemble.folds, ensemble.ensemble_ranks, strict=True):
        mean = np.mean(
            [oof.folds[fold].standardized_similarity(idx, ("speed",)) for idx in (0, 1)], axis=0
        )
        np.testing.assert_allclose(ranks.values(), metrics.caption_scores(mean, MOTION_IDX))
    for idx in (0, 1):  # a member's score alone is without views
        plain = metrics.caption_scores(oof.folds[2].standardized_similarity(idx), MOTION_IDX)
        np.testing.assert_allclose(ensemble.member_ranks[idx][2].values(), plain)
    best = oof.folds[2].standardized_similarity(ensemble.best_member_idx, ("speed",))
    assert ensemble.best_member_tta_ranks is not None
    tta_scores = ensemble.best_member_tta_ranks[2].values()
    np.testing.assert_allclose(tta_scores, metrics.caption_scores(best, MOTION_IDX))


def test_a_view_that_does_not_help_is_left_out() -> None:
    oof = galleries({"a": 1.0, "b": 1.0}, view_signal=0.0)
    ensemble = fit_all(oof, views="auto")
    assert ensemble.views == () and ensemble.best_member_tta_ranks is None
    assert ensemble.local == fit_all(oof, views="none").local


def test_a_view_that_is_named_is_taken_even_if_it_does_not_help() -> None:
    assert fit_all(galleries({"a": 1.0}, view_signal=0.0), views="speed").views == ("speed",)


def test_a_fold_has_no_part_in_choosing_the_view_it_is_scored_with() -> None:
    """The view is useless but on fold 3, where it is perfect: nothing scored on fold 3 has it."""
    oof = galleries({"a": 1.0}, view_signal=0.0)
    gallery = oof.folds[3].members[0]
    assert isinstance(gallery, MemberGallery)
    (view,) = gallery.views["speed"]
    perfect = replace(view, text=9 * view.motion[MOTION_IDX], deviation=1e-3)
    oof = with_gallery(oof, 3, 0, replace(gallery, views={"speed": (perfect,)}))
    ensemble = fit_all(oof, views="auto", fold=3)
    plain = metrics.caption_scores(oof.folds[3].standardized_similarity(0), MOTION_IDX)
    assert ensemble.views == () and ensemble.local.score.mean == pytest.approx(plain.mean())


def test_auto_tries_each_set_of_the_kinds_that_some_member_has() -> None:
    oof = galleries({"a": 1.0, "b": 1.0}, view_signal=1.0)
    for fold in range(4):
        gallery = oof.folds[fold].members[1]
        assert isinstance(gallery, MemberGallery)
        views = {"swap": gallery.views["speed"], **gallery.views}
        oof = with_gallery(oof, fold, 1, replace(gallery, views=views))
    assert fit._view_options(oof, config(views="auto")) == [
        ("speed",),
        ("swap",),
        ("speed", "swap"),
    ]
    assert fit._view_options(oof, config(views="swap,speed")) == [("swap", "speed")]
    assert fit._view_options(oof, config(views="none")) == []


# ---- options that must help


def made_tables(
    gains: dict[object, float], n_galleries: int = 4
) -> list[dict[object, GalleryRanks]]:
    """Galleries of one plain similarity whose options shift the right motions by so much."""
    rng, tables = np.random.default_rng(0), []
    for _ in range(n_galleries):
        motion_idx = np.arange(60)
        plain = rng.normal(size=(60, 60)) + 1.5 * np.eye(60)
        tables.append(
            {
                option: GalleryRanks.of(plain + gain * np.eye(60), motion_idx, motion_idx)
                for option, gain in gains.items()
            }
        )
    return tables


def test_an_option_is_taken_where_it_helps_on_galleries_that_did_not_choose_it() -> None:
    betas: dict[object, float] = {None: 0.0} | dict.fromkeys(query_bank.BETAS, -0.1)
    helps, useless = made_tables(betas | {2.0: 1.0}), made_tables(betas | {2.0: 0.0})
    assert fit.select_if_significant(helps, None) == 2.0
    assert fit.select_if_significant(useless, None) is None
    assert fit.select_if_significant(helps[:1], None) is None
    assert fit.select_if_significant([{None: table[None]} for table in helps], None) is None


def test_a_gain_within_its_error_is_none() -> None:
    """Four galleries where a view as good as the plain similarity scores higher by chance."""
    rng, motion_idx = np.random.default_rng(8), np.arange(40)
    tables = [
        {
            option: GalleryRanks.of(
                rng.normal(size=(40, 40)) + 2 * np.eye(40), motion_idx, motion_idx
            )
            for option in ("plain", "view")
        }
        for _ in range(4)
    ]
    means = {
        option: np.mean([table[option].values() for table in tables])
        for option in ("plain", "view")
    }
    assert 0 < means["view"] - means["plain"] < 0.02
    assert fit.select_if_significant(tables, "plain") == "plain"


def test_an_ensemble_of_one_plain_member_has_that_members_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def by_number_of_folds(tables: list[dict[object, GalleryRanks]], default: object) -> object:
        """A beta on three folds, none on all four."""
        return default if len(tables) == 4 else next(iter({*tables[0]} - {default}), default)

    monkeypatch.setattr(fit, "select_if_significant", by_number_of_folds)
    ensemble = fit_all(galleries({"a": 1.0}), query_bank="auto")
    assert ensemble.is_plain_member and ensemble.ensemble_ranks == ensemble.member_ranks[0]


def test_a_query_bank_is_asked_of_the_models_with_a_weight() -> None:
    oof = galleries({"a": 1.0, "b": 1.0})
    folds: FoldSet = (0, 1, 2, 3)
    weights = fit.fit_weights(oof, config(weights="equal"))
    assert folds in fit.bank_fold_sets(oof, weights, config(query_bank="auto"))
    assert fit.bank_members(oof, weights, config(query_bank="auto")).tolist() == [True, True]
    assert fit.bank_fold_sets(oof, weights, config(query_bank="off")) == []
    for member_idx, expected in ((1, [True, False]), (0, [False, False])):
        for fold in folds:
            scores = ExternalGallery(oof.folds[fold].members[member_idx].similarity())
            oof = with_gallery(oof, fold, member_idx, scores)
        assert fit.bank_members(oof, weights, config(query_bank="auto")).tolist() == expected
    assert fit.bank_fold_sets(oof, weights, config(query_bank="auto")) == []


def test_a_bank_of_queries_is_taken_whatever_it_gains_out_of_fold() -> None:
    oof = galleries({"a": 1.0})
    for fold, gallery in oof.folds.items():
        (member,) = gallery.members
        assert isinstance(member, MemberGallery)
        first = np.unique(gallery.motion_idx, return_index=True)[1]
        oof = with_gallery(oof, fold, 0, replace(member, bank=member.caption_bank(first)))
    ensemble = fit_all(oof, query_bank="test")
    assert ensemble.bank_of_queries and ensemble.beta == query_bank.TEST_BETA
    plain = fit_all(galleries({"a": 1.0}))
    assert plain.beta is None and not plain.bank_of_queries
    assert ensemble.local.score.mean != plain.local.score.mean


# ---- purity

FIT_WITHOUT_MODELS = """
import pickle, sys
from motret.ensemble import fit
galleries, config = pickle.load(open(sys.argv[1], "rb"))
weights = fit.fit_weights(galleries, config)
ensemble = fit.fit_ensemble(galleries.select(weights.member_idx), weights, config)
pickle.dump(ensemble, open(sys.argv[2], "wb"))
imported = {name for name in sys.modules if name.split(".")[0] == "torch"}
imported |= {name for name in sys.modules if name.startswith(("motret.models", "motret.runs"))}
assert not imported, imported
"""


def test_saved_arrays_give_the_same_ensemble_in_a_process_without_torch(tmp_path: Path) -> None:
    oof, chosen = (
        galleries({"a": 1.0, "b": 1.0, "c": 0.0}, view_signal=3.0),
        config(views="auto", query_bank="auto"),
    )
    saved, fitted = tmp_path / "galleries.pickle", tmp_path / "ensemble.pickle"
    saved.write_bytes(pickle.dumps((oof, chosen)))
    subprocess.run(
        [sys.executable, "-c", FIT_WITHOUT_MODELS, str(saved), str(fitted)],
        check=True,
        cwd=base.ROOT / "solution",
    )
    ensemble: FittedEnsemble = pickle.loads(fitted.read_bytes())
    here = fit_all(oof, views="auto", query_bank="auto")
    np.testing.assert_array_equal(ensemble.weights, here.weights)
    assert (ensemble.names, ensemble.views, ensemble.beta) == (here.names, here.views, here.beta)
    assert ensemble.local == here.local and here.views == ("speed",)
