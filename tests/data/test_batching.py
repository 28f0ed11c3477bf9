"""Batches: each motion at most once with all its captions, long motions shortened by rule, statistics of the right motions."""

import numpy as np
import pytest
import torch

import helpers
from motret.data import batching
from motret.data.batching import CaptionTable, MotionTensors

LENGTHS = [5, 60, 61, 100, 240, 17, 1, 33]


def motions(lengths=LENGTHS, persons=2, **values):
    packed = helpers.store(lengths, persons)
    return packed, MotionTensors(packed, helpers.config(**values).motion, helpers.CPU)


def shortened(features, limit, rule):
    """A motion as the tower sees it, said frame by frame."""
    if len(features) <= limit:
        return features
    if rule == "crop":
        start = (len(features) - limit) // 2
        return features[start : start + limit]
    return np.stack([features[round(step * (len(features) - 1) / (limit - 1))] for step in range(limit)])


@pytest.mark.parametrize("rule", ["subsample", "crop"])
@pytest.mark.parametrize("persons", [1, 2])
def test_gathered_motions_are_what_a_loop_gathers(rule, persons):
    packed, gallery = motions(persons=persons, long_motions=rule, max_frames=60)
    rows = [3, 0, 4, 2, 6, 1]
    found = gallery.gather(torch.tensor(rows))
    assert found.frames.dtype == torch.float32 and found.lengths.tolist() == [60, 5, 60, 60, 1, 60]
    for place, row in enumerate(rows):
        wanted = shortened(packed.motion(row), 60, rule)
        held = np.concatenate([wanted, np.repeat(wanted[-1:], 60 - len(wanted), axis=0)])
        np.testing.assert_array_equal(found.frames[place].numpy(), held)


def test_a_batch_of_short_motions_is_no_longer_than_its_longest():
    _, gallery = motions()
    assert gallery.gather(torch.tensor([0, 6, 5])).frames.shape[1] == 17


def test_a_limit_of_one_frame_keeps_one():
    packed, gallery = motions(max_frames=1)
    frames = gallery.gather(torch.tensor([3, 6])).frames
    np.testing.assert_array_equal(frames[0, 0].numpy(), packed.motion(3)[0])
    assert frames.shape[1] == 1


def test_statistics_are_those_of_the_training_motions_alone(monkeypatch):
    monkeypatch.setattr(batching, "EVAL_BATCH_SIZE", 2)
    packed, gallery = motions()
    packed.features[packed.offsets[4] : packed.offsets[4] + 240] = 1e3  # a motion that is held out
    rows = [0, 2, 3, 5, 6]
    seen = np.concatenate([packed.motion(row)[::8].astype(np.float64).reshape(-1, packed.features.shape[-1]) for row in rows])
    mean, deviation = gallery.statistics(torch.tensor(rows))
    np.testing.assert_allclose(mean.numpy(), seen.mean(0), atol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), seen.std(0), atol=1e-6)


# ---- epochs


def table(data):
    return CaptionTable(data.training.captions, helpers.bank(data), helpers.CPU)


def test_the_table_gives_each_motion_its_own_captions_in_order():
    data = helpers.training_data()
    bank = helpers.bank(data)
    texts = list(bank.index)
    wanted = [7, 2, 2, 19, 0]
    rows, motion_idx = table(data).captions_of(torch.tensor(wanted))
    told = [(texts[row], place) for row, place in zip(rows.tolist(), motion_idx.tolist(), strict=True)]
    assert told == [(caption, place) for place, motion in enumerate(wanted) for caption in data.training.captions[motion]]


def epoch(seed=0, size=6, rows=None):
    """The epoch's batches, and of each its motions by the ids of their captions."""
    data = helpers.training_data()
    gallery = MotionTensors(data.store, helpers.config().motion, helpers.CPU)
    rows = np.arange(20) if rows is None else rows
    order, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    made = list(batching.iterate_epoch(gallery, table(data), rows, size, order, noise))
    texts = list(helpers.bank(data).index)
    return data, made, [[int(texts[row].split()[1]) for row in batch.caption_idx] for batch in made]


@pytest.mark.parametrize(("size", "count"), [(6, 3), (20, 1), (64, 1), (7, 2)])
def test_an_epoch_holds_each_motion_at_most_once_with_all_its_captions(size, count):
    data, made, told = epoch(size=size)
    met = []
    for batch, motions_told in zip(made, told, strict=True):
        present = sum(len(piece.lengths) for piece in batch.buckets)
        assert present == min(size, 20)
        own = [
            sorted({m for m, place in zip(motions_told, batch.motion_idx.tolist(), strict=True) if place == at}) for at in range(present)
        ]
        assert all(len(motion) == 1 for motion in own)
        met += [motion[0] for motion in own]
        for at, (motion,) in enumerate(own):
            assert (batch.motion_idx == at).sum() == len(data.training.captions[motion])
    assert len(made) == count == batching.steps_per_epoch(20, size)
    assert len(set(met)) == len(met) == count * min(size, 20)


def test_captions_and_pieces_tell_of_the_same_motions_in_order_of_length():
    data, made, told = epoch()
    for batch, motions_told in zip(made, told, strict=True):
        by_place = [motions_told[batch.motion_idx.tolist().index(place)] for place in range(6)]
        lengths = torch.cat([piece.lengths for piece in batch.buckets]).tolist()
        assert lengths == sorted(lengths) == [min(60, int(data.store.lengths[motion])) for motion in by_place]
        first = torch.cat([piece.frames[:, 0] for piece in batch.buckets]).numpy()
        np.testing.assert_array_equal(first, np.stack([data.store.motion(motion)[0] for motion in by_place]))


def test_only_the_rows_that_are_asked_for_are_met():
    rows = np.array([1, 4, 5, 9, 16, 18, 19])
    assert {motion for batch in epoch(size=3, rows=rows)[2] for motion in batch} <= set(rows.tolist())
    assert len({motion for batch in epoch(size=7, rows=rows)[2] for motion in batch}) == 7


def test_batches_repeat_by_seed_and_differ_between_seeds():
    assert epoch(seed=3)[2] == epoch(seed=3)[2] != epoch(seed=4)[2]


def test_the_generator_of_an_epoch_reaches_its_pieces():
    made = epoch()[1]
    assert all(piece.generator is not None for batch in made for piece in batch.buckets)
    assert len({id(piece.generator) for batch in made for piece in batch.buckets}) == 1
