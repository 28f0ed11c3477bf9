"""Which captions are no negatives of a motion: those that say the same, measured so that no encoder
hides all of them, sides minded."""

import numpy as np
import pytest
import torch

import helpers
import train
from helpers import saved_bert
from motret.config import base
from motret.config.training import TextConfig
from motret.data import captions
from motret.data.inputs import CaptionBank
from motret.models import embed, registry
from motret.training import objective
from motret.training.context import make_context


def context_of(motion_captions, vectors, **values):
    """The workplace of motions with these captions, a tuple each, under an encoder that gives
    caption i the i-th vector."""
    data = helpers.training_data(captions=motion_captions)
    index = {
        caption: row
        for row, caption in enumerate(dict.fromkeys(one for own in motion_captions for one in own))
    }
    config = helpers.config(**values)
    return make_context(
        config, data, CaptionBank(index, vectors=torch.as_tensor(vectors, dtype=torch.float32))
    ), config


def excluded(context, config):
    rows, motion_idx = context.table.captions_of(torch.arange(len(context.table.counts)))
    return objective.false_negative_mask(
        rows, motion_idx, len(context.table.counts), context, config
    ).numpy()


def around(center, count, spread=0.02, seed=0):
    return np.asarray(center) + spread * np.random.default_rng(seed).normal(
        size=(count, len(center))
    )


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("waves the left hand", "L"),
        ("Right foot, right knee, then LEFT", "RL"),
        ("turns counter-clockwise, then clockwise", "AC"),
        ("moves leftwards anticlockwise", "LA"),
        ("stands upright and bows", ""),
    ],
)
def test_sides_are_named_in_their_order(caption, named):
    assert captions.named_sides(caption) == named
    assert captions.opposite_sides(captions.opposite_sides(named)) == named


def test_a_direction_that_all_captions_share_hides_no_negative():
    motion_captions = tuple((f"scene {number}",) for number in range(30))
    vectors = np.random.default_rng(0).normal(size=(30, 16))
    shared = vectors + 40
    cosines = (
        shared @ shared.T / np.linalg.norm(shared, axis=1)[:, None] / np.linalg.norm(shared, axis=1)
    )
    assert cosines.min() > 0.9  # all are alike by their plain cosines
    context, config = context_of(motion_captions, shared)
    assert np.array_equal(excluded(context, config), np.eye(30, dtype=bool))
    assert objective.excluded_negative_fraction(context, config) == 0


def test_captions_alike_are_still_left_out_under_a_shared_direction():
    motion_captions = (("walks",), ("strolls",), ("jumps",), ("hops",), ("bows",), ("waves",))
    kinds = np.eye(8)[[0, 0, 1, 1, 2, 3]]
    context, config = context_of(
        motion_captions, kinds + 0.01 * np.random.default_rng(0).normal(size=(6, 8)) + 30
    )
    expected = np.eye(6, dtype=bool)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = True
    assert np.array_equal(excluded(context, config), expected)
    assert objective.excluded_negative_fraction(context, config) == pytest.approx(4 / 30)


def test_a_caption_and_its_mirror_are_not_taken_for_the_same():
    motion_captions = (
        ("waves the left hand",),
        ("is waving with the right hand",),
        ("waves with the left hand",),
        ("waves a hand", "waves the right hand"),
        ("sits down",),
    )
    hand, sit = np.eye(6)[0], np.eye(6)[1]
    context, config = context_of(motion_captions, np.stack([*around(hand, 5), sit]))
    result = excluded(context, config)
    assert result[0, 2] and result[2, 0]  # both left
    assert not result[0, 1] and not result[1, 0] and not result[2, 1]
    assert result[3, 0] and result[3, 2]  # a hand may be the left one
    assert not result[0, 3]  # "waves a hand" fits, "waves the right hand" does not
    assert result[1, 3]


def test_an_equal_caption_is_left_out_even_of_a_motion_told_both_ways():
    motion_captions = (
        ("waves the left hand",),
        ("waves the left hand", "waves the right hand"),
        ("sits",),
    )
    context, config = context_of(
        motion_captions, np.stack([*around(np.eye(4)[0], 2), np.eye(4)[1]])
    )
    assert excluded(context, config)[0].tolist() == [True, True, False]


def test_without_a_pretrained_tower_only_equal_captions_are_left_out():
    motion_captions = (("a",), ("a",), ("b",))
    context, config = context_of(motion_captions, np.ones((2, 4)), negative_threshold=1.5)
    assert excluded(context, config).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]
    assert objective.excluded_negative_fraction(context, config) == pytest.approx(2 / 6)
    context, config = context_of(motion_captions, np.ones((2, 4)), negative_threshold=0)
    assert objective.excluded_negative_fraction(context, config) == 0


# ---- by the command line


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT whose token embeddings are nearly all the same: its captions have plain cosines near
    1."""
    from safetensors.torch import load_file, save_file

    file = saved_bert(tmp_path_factory.mktemp("cone")) / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.1.output.LayerNorm.bias"] += 20
    save_file(weights, file, metadata={"format": "pt"})
    return f"hf:{file.parent}"


def train_with(out_dir, name, encoder, **values):
    flags = {
        key: value
        for key, value in (helpers.SMALL | {"fold": 0, "epochs": 1} | values).items()
        if key not in ("device", "jobs")
    }
    call = [
        "holistic",
        *helpers.places(),
        *helpers.flags(out_dir=out_dir, run_name=name, folds=2, text_tower=encoder, **flags),
    ]
    return train.main(call)


def test_a_run_says_how_many_pairs_are_no_negatives_and_its_loss_is_not_zero(
    encoder, tmp_path, capsys
):
    tower = registry.make_text_tower(base.build_config(TextConfig, {"text_tower": encoder})).eval()
    said = torch.from_numpy(
        embed.embed_frozen(tower, *tower.tokenize(["one waves", "both bow"]), helpers.CPU)
    )
    assert torch.cosine_similarity(said[:1], said[1:]).item() > 0.99
    assert train_with(tmp_path, "run", encoder, negative_threshold=0.95) == 0
    printed = capsys.readouterr().out
    assert printed.count("of the pairs of a caption and another motion are no negatives") == 1
    line = (tmp_path / "run" / "fold0" / "metrics.csv").read_text().splitlines()
    assert float(dict(zip(*(row.split(",") for row in line[:2]), strict=True))["train_loss"]) > 0.1


def test_a_threshold_that_leaves_little_to_learn_from_stops_the_run(encoder, tmp_path, capsys):
    assert train_with(tmp_path, "run", encoder, negative_threshold=1e-9) == 1
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "--negative_threshold" in error
        and "of the negatives out" in error
        and "raise it" in error
    )
    assert not (tmp_path / "run").exists()
