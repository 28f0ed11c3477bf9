"""Which captions are no negatives of a motion: those that say the same, measured so that no encoder hides all of them, sides minded."""

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
from motret.training import context, objective


def place_of(told, vectors, **values):
    """The workplace of motions with these captions, a tuple each, under an encoder that gives caption i the i-th vector."""
    data = helpers.training_data(captions=told)
    index = {caption: row for row, caption in enumerate(dict.fromkeys(one for own in told for one in own))}
    chosen = helpers.config(**values)
    return context.make_context(chosen, data, CaptionBank(index, vectors=torch.as_tensor(vectors, dtype=torch.float32))), chosen


def excluded(place, chosen):
    rows, motion_idx = place.table.captions_of(torch.arange(len(place.table.counts)))
    return objective.false_negative_mask(rows, motion_idx, len(place.table.counts), place, chosen).numpy()


def around(center, count, spread=0.02, seed=0):
    return np.asarray(center) + spread * np.random.default_rng(seed).normal(size=(count, len(center)))


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
    told = tuple((f"scene {number}",) for number in range(30))
    vectors = np.random.default_rng(0).normal(size=(30, 16))
    shared = vectors + 40
    cosines = shared @ shared.T / np.linalg.norm(shared, axis=1)[:, None] / np.linalg.norm(shared, axis=1)
    assert cosines.min() > 0.9  # all are alike by their plain cosines
    place, chosen = place_of(told, shared)
    assert np.array_equal(excluded(place, chosen), np.eye(30, dtype=bool))
    assert objective.excluded_negative_fraction(place, chosen) == 0


def test_captions_alike_are_still_left_out_under_a_shared_direction():
    told = (("walks",), ("strolls",), ("jumps",), ("hops",), ("bows",), ("waves",))
    kinds = np.eye(8)[[0, 0, 1, 1, 2, 3]]
    place, chosen = place_of(told, kinds + 0.01 * np.random.default_rng(0).normal(size=(6, 8)) + 30)
    wanted = np.eye(6, dtype=bool)
    wanted[0, 1] = wanted[1, 0] = wanted[2, 3] = wanted[3, 2] = True
    assert np.array_equal(excluded(place, chosen), wanted)
    assert objective.excluded_negative_fraction(place, chosen) == pytest.approx(4 / 30)


def test_a_caption_and_its_mirror_are_not_taken_for_the_same():
    told = (
        ("waves the left hand",),
        ("is waving with the right hand",),
        ("waves with the left hand",),
        ("waves a hand", "waves the right hand"),
        ("sits down",),
    )
    hand, sit = np.eye(6)[0], np.eye(6)[1]
    place, chosen = place_of(told, np.stack([*around(hand, 5), sit]))
    found = excluded(place, chosen)
    assert found[0, 2] and found[2, 0]  # both left
    assert not found[0, 1] and not found[1, 0] and not found[2, 1]
    assert found[3, 0] and found[3, 2]  # a hand may be the left one
    assert not found[0, 3]  # "waves a hand" fits, "waves the right hand" does not
    assert found[1, 3]


def test_an_equal_caption_is_left_out_even_of_a_motion_told_both_ways():
    told = (("waves the left hand",), ("waves the left hand", "waves the right hand"), ("sits",))
    place, chosen = place_of(told, np.stack([*around(np.eye(4)[0], 2), np.eye(4)[1]]))
    assert excluded(place, chosen)[0].tolist() == [True, True, False]


def test_without_a_pretrained_tower_only_equal_captions_are_left_out():
    told = (("a",), ("a",), ("b",))
    place, chosen = place_of(told, np.ones((2, 4)), negative_threshold=1.5)
    assert excluded(place, chosen).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert objective.excluded_negative_fraction(place, chosen) == pytest.approx(2 / 6)
    place, chosen = place_of(told, np.ones((2, 4)), negative_threshold=0)
    assert objective.excluded_negative_fraction(place, chosen) == 0


# ---- by the command line


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT whose token embeddings are nearly all the same: its captions have plain cosines near 1."""
    from safetensors.torch import load_file, save_file

    file = saved_bert(tmp_path_factory.mktemp("cone")) / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.1.output.LayerNorm.bias"] += 20
    save_file(weights, file, metadata={"format": "pt"})
    return f"hf:{file.parent}"


def train_with(out_dir, name, encoder, **values):
    flags = {key: value for key, value in (helpers.SMALL | {"fold": 0, "epochs": 1} | values).items() if key not in ("device", "jobs")}
    call = ["holistic", *helpers.places(), *helpers.flags(out_dir=out_dir, run_name=name, folds=2, text_tower=encoder, **flags)]
    return train.main(call)


def test_a_run_says_how_many_pairs_are_no_negatives_and_its_loss_is_not_zero(encoder, tmp_path, capsys):
    tower = registry.make_text_tower(base.build_config(TextConfig, {"text_tower": encoder})).eval()
    said = torch.from_numpy(embed.embed_frozen(tower, *tower.tokenize(["one waves", "both bow"]), helpers.CPU))
    assert torch.cosine_similarity(said[:1], said[1:]).item() > 0.99
    assert train_with(tmp_path, "run", encoder, negative_threshold=0.95) == 0
    printed = capsys.readouterr().out
    assert printed.count("of the pairs of a caption and another motion are no negatives") == 1
    line = (tmp_path / "run" / "fold0" / "metrics.csv").read_text().splitlines()
    assert float(dict(zip(*(row.split(",") for row in line[:2]), strict=True))["train_loss"]) > 0.1


def test_a_threshold_that_leaves_little_to_learn_from_stops_the_run(encoder, tmp_path, capsys):
    assert train_with(tmp_path, "run", encoder, negative_threshold=1e-9) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--negative_threshold" in error and "of the negatives out" in error and "raise it" in error
    assert not (tmp_path / "run").exists()
