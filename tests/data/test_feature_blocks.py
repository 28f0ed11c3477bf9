"""A block whose functions do not fit its entry is one line that names the block."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import helpers
from motret.data import augment, features
from motret.data.feature_blocks import BLOCKS, FeatureBlock
from motret.data.features import FeatureConfig
from motret.errors import ConfigError
from motret.skeleton import SMPL

BLOCK = FeatureBlock(
    unit="m",
    width=lambda *_: 2,
    compute=lambda motion: motion.positions[..., :2, 1],
    mirror=lambda *_: (np.array([1, 0]), np.ones(2)),
)
CONFIG = FeatureConfig(kind="canonical+posture", rotations=False)


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds the block posture with some other fields."""

    def add_block(**fields: object) -> None:
        monkeypatch.setitem(BLOCKS, "posture", replace(BLOCK, **fields))

    return add_block


def compute() -> np.ndarray:
    return features.make_features(helpers.body(9), helpers.sixes(9), np.array([0]), CONFIG)


def test_a_joint_that_is_not_there_is_named_with_its_block_and_the_nearest_joints(
    add, expect_error
) -> None:
    add(compute=lambda motion: motion.positions[..., [motion.body.joint("left_feet")], 1])
    expect_error(
        compute,
        "feature block 'posture'",
        "'left_feet' is no joint of smpl22",
        "did you mean left_",
        "left_foot",
    )
    with pytest.raises(ValueError, match=r"'paw' is no joint of smpl22 \(choose from pelvis, "):
        SMPL.joint("paw")


@pytest.mark.parametrize("width", [1, 3])
def test_values_of_another_width_are_refused(add, expect_error, width: int) -> None:
    add(compute=lambda motion: motion.positions[..., :width, 1])
    words = f"compute gives (9, 2, {width})", "(frames, persons, width) is (9, 2, 2)"
    expect_error(compute, "feature block 'posture'", *words)


@pytest.mark.parametrize(
    ("order", "signs", "word"),
    [
        ([0, 0], [1, 1], "[0 0]"),
        ([1, 2], [1, 1], "[1 2]"),
        ([0], [1, 1], "[0]"),
        ([0.0, 1.0], [1, 1], "[0. 1.]"),
        (0, [1, 1], "no order of 0 to 1"),
        ([[0, 1]], [1, 1], "no order of 0 to 1"),
        ([0, 1], [1], "signs of shape (1,)"),
        ([0, 1], 1, "signs of shape ()"),
    ],
)
def test_a_mirror_that_is_no_permutation_with_signs_is_refused(
    add, expect_error, order, signs, word: str
) -> None:
    add(mirror=lambda *_: (np.array(order), np.array(signs)))
    columns = features.feature_layout(2, CONFIG)
    expect_error(lambda: augment.make_mirror(columns), "feature block 'posture'", "mirror", word)


def test_a_block_that_fits_is_computed_and_mirrored(add) -> None:
    add()
    columns = features.feature_layout(2, CONFIG)
    values = compute()
    assert values.shape == (9, 2, columns.width) and columns["posture"].stop == columns.width
    assert augment.make_mirror(columns).order[-2:].tolist() == [
        columns.width - 1,
        columns.width - 2,
    ]


def test_a_block_that_is_gone_is_named_with_what_brings_it_back() -> None:
    with pytest.raises(ConfigError, match=r"'canonical\+gone' .*or put gone back into .*BLOCKS"):
        FeatureConfig(kind="canonical+gone").key()
