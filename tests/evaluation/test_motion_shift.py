"""Motions unlike the training's: the distances by a twin, and when it is said so."""

from dataclasses import replace

import numpy as np
import pytest

import helpers
from motret.evaluation import motion_shift
from motret.evaluation.motion_shift import MotionShift

LENGTHS = [30, 41, 8, 25, 60, 33, 47, 12, 29, 50, 31, 44]
FOLDS = helpers.folds(motions=len(LENGTHS), count=3)


def twin(motions, references):
    """Root mean square to the nearest reference, a person at a time."""
    persons = [person for motion in references for person in motion]
    return [
        min(np.sqrt(np.mean((person - other) ** 2)) for other in persons)
        for motion in motions
        for person in motion
    ]


def summaries(store):
    """Means over every fourth frame of each motion, written as they are read."""
    starts = store.offsets
    return np.array(
        [
            store.features[start : start + length : 4].astype(float).mean(axis=0)
            for start, length in zip(starts, store.lengths, strict=True)
        ]
    )


def test_distances_are_to_the_nearest_person_in_deviations_over_the_training_motions():
    training, test = helpers.store(LENGTHS, seed=0), helpers.store(LENGTHS[:5], seed=1)
    shift = motion_shift.measure_shift(training, test, FOLDS)
    ours, theirs = summaries(training), summaries(test)
    for name, columns in training.columns.items():
        block = ours[..., columns]
        scale = block.std(axis=(0, 1))
        expected = twin(theirs[..., columns] / scale, block / scale)
        np.testing.assert_allclose(shift.test[name], expected, rtol=1e-3)
        held_out = [
            distance
            for fold in range(3)
            for distance in twin(
                block[FOLDS.fold == fold] / scale, block[FOLDS.fold != fold] / scale
            )
        ]
        np.testing.assert_allclose(shift.held_out[name], held_out, rtol=1e-3)


def test_the_same_kind_of_motions_is_like_the_training_set():
    shift = motion_shift.measure_shift(
        helpers.store(LENGTHS, seed=0), helpers.store(LENGTHS, seed=1), FOLDS
    )
    assert not shift.is_unlike and shift.line().startswith("the test's motions are like")


def test_a_block_that_is_shifted_in_the_test_is_named():
    training, test = helpers.store(LENGTHS, seed=0), helpers.store(LENGTHS, seed=1)
    features = np.array(test.features, dtype=np.float32)
    features[..., training.columns["rotation"]] += 3
    shifted = replace(test, features=features.astype(np.float16))
    shift = motion_shift.measure_shift(training, shifted, FOLDS)
    assert shift.is_unlike and shift.block == "rotation"
    assert shift.line().startswith("warning: the test's motions are unlike the training's")
    assert "in rotation; expect less than the local score" in shift.line()


@pytest.mark.parametrize(("level", "unlike"), [(0.74, False), (0.76, True)])
def test_half_of_the_test_must_be_farther_than_three_quarters_of_the_held_out(level, unlike):
    shift = MotionShift({"root": np.array([0.0, level, 0.9])}, {"root": np.linspace(0, 1, 101)})
    assert shift.is_unlike == unlike


def test_more_motions_than_the_limit_are_sampled(monkeypatch):
    monkeypatch.setattr(motion_shift, "MAX_MOTIONS", 6)
    training = helpers.store(LENGTHS, seed=0)
    shift = motion_shift.measure_shift(training, training, FOLDS)
    assert {len(distance) for distance in shift.test.values()} == {2 * 6}
    assert all((distance < 1e-2).all() for distance in shift.test.values())  # the same motions
