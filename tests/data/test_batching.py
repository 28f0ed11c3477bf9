"""Batches: each motion at most once with all its captions, long motions shortened by rule,
statistics of the right motions."""

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
    return np.stack(
        [features[round(step * (len(features) - 1) / (limit - 1))] for step in range(limit)]
    )


@pytest.mark.parametrize("rule", ["subsample", "crop"])
@pytest.mark.parametrize("persons", [1, 2])
def test_gathered_motions_are_what_a_loop_gathers(rule, persons):
    packed, gallery = motions(persons=persons, long_motions=rule, max_frames=60)
    indices = [3, 0, 4, 2, 6, 1]
    batch = gallery.gather(torch.tensor(indices))
    assert batch.frames.dtype == torch.float32 and batch.lengths.tolist() == [60, 5, 60, 60, 1, 60]
    for position, motion_idx in enumerate(indices):
        expected = shortened(packed.motion(motion_idx), 60, rule)
        padded = np.concatenate([expected, np.repeat(expected[-1:], 60 - len(expected), axis=0)])
        np.testing.assert_array_equal(batch.frames[position].numpy(), padded)


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
    train_idx = [0, 2, 3, 5, 6]
    frames = np.concatenate(
        [
            packed.motion(motion_idx)[::8].astype(np.float64).reshape(-1, packed.features.shape[-1])
            for motion_idx in train_idx
        ]
    )
    mean, deviation = gallery.statistics(torch.tensor(train_idx))
    np.testing.assert_allclose(mean.numpy(), frames.mean(0), atol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), frames.std(0), atol=1e-6)


# ---- epochs


def table(data):
    return CaptionTable(data.training.captions, helpers.bank(data))


def test_the_table_gives_each_motion_its_own_captions_in_order():
    data = helpers.training_data()
    bank = helpers.bank(data)
    texts = list(bank.index)
    indices = [7, 2, 2, 19, 0]
    caption_idx, motion_idx = table(data).captions_of(torch.tensor(indices))
    captions_of_motions = [
        (texts[index], position)
        for index, position in zip(caption_idx.tolist(), motion_idx.tolist(), strict=True)
    ]
    assert captions_of_motions == [
        (caption, position)
        for position, motion in enumerate(indices)
        for caption in data.training.captions[motion]
    ]


def epoch(seed=0, size=6, train_idx=None):
    """The epoch's batches, and of each its motions by the ids of their captions."""
    data = helpers.training_data()
    gallery = MotionTensors(data.store, helpers.config().motion, helpers.CPU)
    train_idx = np.arange(20) if train_idx is None else train_idx
    random = batching.EpochRandom.seeded(np.random.default_rng(seed), seed, helpers.CPU)
    batches = list(batching.iterate_epoch(gallery, table(data), train_idx, size, random))
    texts = list(helpers.bank(data).index)
    return (
        data,
        batches,
        [[int(texts[index].split()[1]) for index in batch.caption_idx] for batch in batches],
    )


@pytest.mark.parametrize(("size", "count"), [(6, 3), (20, 1), (64, 1), (7, 2)])
def test_an_epoch_holds_each_motion_at_most_once_with_all_its_captions(size, count):
    data, batches, captioned = epoch(size=size)
    all_motions = []
    for batch, captioned_motions in zip(batches, captioned, strict=True):
        present = sum(len(bucket.lengths) for bucket in batch.buckets)
        assert present == min(size, 20)
        motions_at = [
            sorted(
                {
                    m
                    for m, position in zip(
                        captioned_motions, batch.motion_idx.tolist(), strict=True
                    )
                    if position == index
                }
            )
            for index in range(present)
        ]
        assert all(len(motion) == 1 for motion in motions_at)
        all_motions += [motion[0] for motion in motions_at]
        for index, (motion,) in enumerate(motions_at):
            assert (batch.motion_idx == index).sum() == len(data.training.captions[motion])
    assert len(batches) == count == batching.steps_per_epoch(20, size)
    assert len(set(all_motions)) == len(all_motions) == count * min(size, 20)


def test_captions_and_pieces_tell_of_the_same_motions_in_order_of_length():
    data, batches, captioned = epoch()
    for batch, captioned_motions in zip(batches, captioned, strict=True):
        by_position = [
            captioned_motions[batch.motion_idx.tolist().index(position)] for position in range(6)
        ]
        lengths = torch.cat([bucket.lengths for bucket in batch.buckets]).tolist()
        assert (
            lengths
            == sorted(lengths)
            == [min(60, int(data.store.lengths[motion])) for motion in by_position]
        )
        first = torch.cat([bucket.frames[:, 0] for bucket in batch.buckets]).numpy()
        np.testing.assert_array_equal(
            first, np.stack([data.store.motion(motion)[0] for motion in by_position])
        )


def test_only_the_rows_that_are_asked_for_are_met():
    train_idx = np.array([1, 4, 5, 9, 16, 18, 19])
    assert {motion for batch in epoch(size=3, train_idx=train_idx)[2] for motion in batch} <= set(
        train_idx.tolist()
    )
    assert len({motion for batch in epoch(size=7, train_idx=train_idx)[2] for motion in batch}) == 7


def test_batches_repeat_by_seed_and_differ_between_seeds():
    assert epoch(seed=3)[2] == epoch(seed=3)[2] != epoch(seed=4)[2]


def test_the_generator_of_an_epoch_reaches_its_pieces():
    batches = epoch()[1]
    assert all(bucket.generator is not None for batch in batches for bucket in batch.buckets)
    assert len({id(bucket.generator) for batch in batches for bucket in batch.buckets}) == 1
