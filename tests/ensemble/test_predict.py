"""What members' models are asked for: only members with a weight, each fold by the model that was
not trained on it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import helpers
from helpers import made_run
from motret.config import base
from motret.config.scripts import EnsembleConfig
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.ensemble import fit, predict
from motret.ensemble.external import ExternalMember, ExternalPredictions
from motret.ensemble.galleries import BankEmbeddings, MemberGallery
from motret.ensemble.inference import Encoder
from motret.ensemble.members import Member
from motret.errors import ConfigError
from motret.runs import oof

DATA, FOLDS = helpers.training_data(), helpers.folds(count=4)


class RecordingEncoder:
    """Stands in for models: notes what they are asked, and embeds a query bank at random."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, list[str] | None]] = []

    def predict_held_out(
        self,
        member: Member,
        fold: int,
        _data: TrainingData,
        _folds: Folds,
        bank_captions: Sequence[str] | None,
    ) -> BankEmbeddings | None:
        self.calls.append(
            (member.name, fold, None if bank_captions is None else list(bank_captions))
        )
        n_captions = 0 if bank_captions is None else len(bank_captions)
        return BankEmbeddings(np.random.default_rng(fold).normal(size=(n_captions, 6)))


def config(**values: object) -> EnsembleConfig:
    return base.build_config(
        EnsembleConfig, {"query_bank": "off", "views": "none", "device": "cpu"} | values
    )


def make_member(folder: Path, name: str, seed: int = 0, **values: Any) -> Member:
    run = made_run(folder, name, seed, found=FOLDS, **{"folds": range(4)} | values)
    return Member(
        name,
        dict.fromkeys(run.finished_folds(), run),
        tuple((run, fold) for fold in run.finished_folds()),
        (name,),
    )


def ask(
    members: Sequence[predict.AnyMember], **values: object
) -> tuple[RecordingEncoder, fit.OofGalleries]:
    encoder, chosen = RecordingEncoder(), config(**values)
    galleries = predict.load_galleries(members, DATA, FOLDS)
    weights = fit.fit_weights(galleries, chosen)
    assert weights.member_idx == tuple(range(len(members)))
    _, predicted = predict.predict_out_of_fold(
        members, galleries, weights, DATA, FOLDS, chosen, cast(Encoder, encoder)
    )
    return encoder, predicted


def test_galleries_are_what_training_embedded_on_the_folds_that_all_members_have(
    tmp_path: Path,
) -> None:
    members = [make_member(tmp_path, "a"), make_member(tmp_path, "b", seed=1, folds=(1, 2))]
    galleries = predict.load_galleries(members, DATA, FOLDS)
    assert galleries.names == ("a", "b") and list(galleries.folds) == [1, 2]
    for fold, gallery in galleries.folds.items():
        for member, of_member in zip(members, gallery.members, strict=True):
            out = oof.load_out_of_fold(member.folds[fold], fold)
            np.testing.assert_array_equal(of_member.similarity(), out.text @ out.motion.T)
            np.testing.assert_array_equal(gallery.motion_idx, out.motion_idx)
            np.testing.assert_array_equal(gallery.group, FOLDS.group[out.data_idx])


def test_nothing_is_asked_where_neither_views_nor_a_query_bank_is_wanted(tmp_path: Path) -> None:
    encoder, predicted = ask([make_member(tmp_path, "a"), make_member(tmp_path, "b", seed=1)])
    assert encoder.calls == []
    assert all(
        isinstance(member, MemberGallery) and member.bank is None
        for member in predicted.folds[0].members
    )


def test_a_query_bank_is_the_captions_of_the_other_folds_embedded_once(tmp_path: Path) -> None:
    members = [make_member(tmp_path, "a"), make_member(tmp_path, "b", seed=1)]
    encoder, predicted = ask(members, query_bank="auto", weights="equal")
    assert [call[:2] for call in encoder.calls] == [
        (name, fold) for name in "ab" for fold in range(4)
    ]
    for name, fold, captions in encoder.calls:
        expected = {
            caption
            for motion_idx in FOLDS.train_idx(fold)
            for caption in DATA.training.captions[motion_idx]
        }
        assert captions == sorted(expected)
        gallery = predicted.folds[fold].members["ab".index(name)]
        assert isinstance(gallery, MemberGallery) and gallery.bank is not None
        assert len(gallery.bank.plain) == len(expected)


def test_for_a_bank_of_queries_each_held_out_motion_lends_its_first_caption(tmp_path: Path) -> None:
    encoder, predicted = ask([make_member(tmp_path, "a")], query_bank="test")
    assert {captions for _, _, captions in encoder.calls} == {None}
    for gallery in predicted.folds.values():
        (member,) = gallery.members
        assert isinstance(member, MemberGallery) and member.bank is not None
        first = [gallery.motion_idx.tolist().index(motion) for motion in range(len(gallery.group))]
        np.testing.assert_array_equal(member.bank.plain, member.text[first])


def test_a_member_without_a_weight_is_not_asked(tmp_path: Path) -> None:
    members = [
        make_member(tmp_path, "good", sharp=5.0),
        make_member(tmp_path, "useless", seed=1, sharp=0.0),
    ]
    encoder, _ = ask(members, query_bank="auto")
    assert {call[0] for call in encoder.calls} == {"good"}


def test_a_member_made_elsewhere_is_not_asked_for_a_query_bank(tmp_path: Path) -> None:
    rng, shape = np.random.default_rng(0), {}
    for fold in range(4):
        motion_idx, group = predict.held_out_captions(DATA, FOLDS, fold)
        shape[fold] = rng.normal(size=(len(motion_idx), len(group)))
    external = ExternalMember(ExternalPredictions("external", (), shape))
    encoder, _ = ask([make_member(tmp_path, "a"), external], query_bank="auto", weights="equal")
    assert {call[0] for call in encoder.calls} == {"a"}


def test_views_are_those_that_a_member_has(tmp_path: Path) -> None:
    member = make_member(tmp_path, "a")
    raw = replace(DATA, store=replace(DATA.store, config=replace(DATA.store.config, kind="raw")))
    data_of = {member.features: raw}
    (with_views,) = predict.with_member_views([member], data_of, config(views="auto"))
    assert list(with_views.views) == [
        "speed"
    ]  # raw features have no mirror, the tower is symmetric in the persons
    assert [view.name for view in with_views.all_views] == ["speed0.9", "speed1.1"]
    assert with_views.with_views(("mirror",)).views == {}
    with pytest.raises(ConfigError, match=r"--views: no member has the view swap \(leave it out\)"):
        predict.with_member_views([member], data_of, config(views="speed,swap"))
