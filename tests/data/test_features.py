"""Canonical features: what does not depend on where a scene stands, and what each number says, by a
plain twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import body, rest_pose, sixes, turned
from motret.data import features, geometry
from motret.data.features import FeatureConfig
from motret.data.geometry import UP_AXES
from motret.skeleton import JOINT, MIRROR, SMPL

FPS = 30.0
UP = np.array([0.0, 1.0, 0.0])


def featured(
    positions: np.ndarray,
    rotations: np.ndarray | None = None,
    starts: tuple[int, ...] = (0,),
    **config,
) -> np.ndarray:
    rotations = sixes(len(positions), positions.shape[1]) if rotations is None else rotations
    return features.make_features(
        positions, rotations, np.array(starts), FeatureConfig(fps=FPS, **config)
    )


def block(values: np.ndarray, name: str) -> np.ndarray:
    return values[..., features.feature_columns(values.shape[1])[name]]


def axes_of(pose: np.ndarray) -> np.ndarray:
    """Rows left, up, forward of a y-up pose (22, 3)."""
    across = (
        pose[JOINT["left_hip"]]
        - pose[JOINT["right_hip"]]
        + pose[JOINT["left_shoulder"]]
        - pose[JOINT["right_shoulder"]]
    )
    left = across * (1, 0, 1) / np.linalg.norm(across * (1, 0, 1))
    return np.stack([left, UP, np.cross(left, UP)])


def plain_features(positions: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The twin: one motion (T, persons, 22, 3), frame by frame and person by person, as
    `features.feature_columns` tells it."""
    positions = positions.astype(float)
    frames, persons = positions.shape[:2]
    floor = np.percentile([positions[t, ..., 1].min() for t in range(frames)], 5)
    table = []
    for t in range(frames):
        t0 = max(min(t, frames - 2), 0)
        t1 = min(t0 + 1, frames - 1)
        for p in range(persons):
            pose, axes = positions[t, p], axes_of(positions[t, p])
            speed = (positions[t1, p] - positions[t0, p]) * FPS
            before, after = axes_of(positions[t0, p]), axes_of(positions[t1, p])
            turning = np.arctan2(after[2] @ before[0], after[2] @ before[2]) * FPS
            below = np.array([pose[0, 0], floor, pose[0, 2]])
            values = [
                *((pose - below) @ axes.T).ravel(),
                *((speed - speed[0]) @ axes.T).ravel(),
                *(axes @ speed[0]),
                turning,
            ]
            values += [pose[0, 1] - floor, *rotations[t, p].ravel()]
            if persons == 2:
                other_pose = positions[t, 1 - p]
                facing = axes_of(other_pose)[2]
                values += [*(axes @ (other_pose[0] - pose[0])), facing @ axes[0], facing @ axes[2]]
                values += [
                    np.linalg.norm(pose[a] - other_pose[b])
                    for a in SMPL.contact_joints
                    for b in SMPL.contact_joints
                ]
            table.append(values)
    return np.array(table).reshape(frames, persons, -1)


def rotation_to(up: str) -> np.ndarray:
    """A proper rotation (3, 3) that lifts +y to the axis `up`."""
    target = np.eye(3)["xyz".index(up[1])] * (1 if up[0] == "+" else -1)
    side = np.eye(3)[("xyz".index(up[1]) + 1) % 3]
    return np.stack([side, target, np.cross(side, target)], axis=1)


@pytest.mark.parametrize("persons", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 40])
def test_features_are_those_of_the_plain_twin(frames: int, persons: int) -> None:
    positions, rotations = body(frames, persons), sixes(frames, persons)
    np.testing.assert_allclose(
        featured(positions, rotations), plain_features(positions, rotations), atol=2e-4
    )


@given(angle=st.floats(-7, 7), x=st.floats(-20, 20), z=st.floats(-20, 20), height=st.floats(-5, 5))
def test_turning_moving_and_raising_a_scene_changes_nothing(
    angle: float, x: float, z: float, height: float
) -> None:
    positions = body(15)
    elsewhere = (turned(positions.astype(float), angle) + np.array([x, height, z])).astype(
        np.float32
    )
    np.testing.assert_allclose(featured(elsewhere), featured(positions), atol=1e-3)


def test_swapping_the_stored_persons_swaps_the_rows_and_changes_nothing_else() -> None:
    positions, rotations = body(25), sixes(25)
    np.testing.assert_array_equal(
        featured(positions[:, ::-1], rotations[:, ::-1]), featured(positions, rotations)[:, ::-1]
    )


@pytest.mark.parametrize("up", UP_AXES)
def test_every_up_axis_is_found_and_features_are_those_of_the_scene_with_y_up(up: str) -> None:
    scenes = [body(20, seed=seed) for seed in range(3)]
    turned_scenes = [(scene @ rotation_to(up).T).astype(np.float32) for scene in scenes]
    assert features.find_up(turned_scenes) == up
    np.testing.assert_allclose(featured(turned_scenes[0], up=up), featured(scenes[0]), atol=1e-3)


@pytest.mark.parametrize("up", UP_AXES)
def test_no_axis_is_reflected_on_the_way_to_y_up(up: str) -> None:
    taken = geometry.to_y_up(np.eye(3), up).T
    assert np.linalg.det(taken) == pytest.approx(1)
    np.testing.assert_array_equal(taken @ (rotation_to(up) @ UP), UP)


def test_one_who_lies_down_is_outvoted() -> None:
    lying = (body(20, seed=9) @ rotation_to("+x").T).astype(np.float32)
    assert features.find_up([body(20, seed=1), lying, body(20, seed=2)]) == "+y"


def test_heading_is_zero_towards_z_and_positive_to_the_left() -> None:
    pose = rest_pose()
    assert geometry.heading(pose) == pytest.approx(0)
    for angle in (0.3, np.pi / 2, -np.pi / 2, 3.0):
        assert geometry.heading(turned(pose, angle)) == pytest.approx(angle)
    left = pose[JOINT["left_hip"]] - pose[JOINT["right_hip"]]
    assert (
        turned(np.array([0.0, 0.0, 1.0]), 0.3) @ left > 0
    )  # so a positive angle is a turn to one's left


def test_a_mirrored_scene_is_mirrored_from_side_to_side() -> None:
    positions = body(20)
    mirrored = (positions * np.array([-1, 1, 1], dtype=np.float32))[:, :, MIRROR]
    here, there = featured(positions), featured(mirrored)
    shape = (20, 2, 22, 3)
    np.testing.assert_allclose(
        block(there, "position").reshape(shape),
        (block(here, "position").reshape(shape) * (-1, 1, 1))[:, :, MIRROR],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        block(there, "root"), block(here, "root") * (-1, 1, 1, -1, 1), atol=1e-3
    )
    np.testing.assert_allclose(
        block(there, "relation")[..., :5],
        block(here, "relation")[..., :5] * (-1, 1, 1, -1, 1),
        atol=1e-4,
    )


def test_a_body_that_glides_has_one_velocity_at_its_root_and_none_in_its_joints() -> None:
    seconds = np.arange(20)[:, None, None, None] / FPS
    gliding = (
        turned(rest_pose(), np.pi / 2) + np.array([1.5, 0.5, 0.2]) * seconds
    )  # facing +x: forward is +x, left is -z
    values = featured(gliding.astype(np.float32))
    np.testing.assert_allclose(
        block(values, "root")[:, 0, :4], np.tile([-0.2, 0.5, 1.5, 0], (20, 1)), atol=1e-3
    )
    np.testing.assert_allclose(block(values, "velocity"), 0, atol=1e-3)
    np.testing.assert_allclose(np.diff(block(values, "root")[:, 0, 4]), 0.5 / FPS, atol=1e-5)


@pytest.mark.parametrize("turning", [-3.0, 3.0])
def test_one_who_spins_round_and_round_turns_at_one_rate(turning: float) -> None:
    angle = turning * np.arange(90)[:, None, None] / FPS  # nearly one and a half times round
    values = featured(turned(rest_pose()[None, None], angle).astype(np.float32))
    np.testing.assert_allclose(block(values, "root")[..., 3], turning, atol=1e-3)
    np.testing.assert_allclose(
        block(values, "position"),
        np.broadcast_to(block(values, "position")[:1], (90, 1, 66)),
        atol=1e-5,
    )


def test_a_motion_of_one_frame_stands_still() -> None:
    values = featured(body(1))
    assert np.isfinite(values).all()
    assert not block(values, "velocity").any() and not block(values, "root")[..., :4].any()


def test_the_last_frame_moves_as_the_one_before() -> None:
    rates = geometry.rate_of_change(np.array([0.0, 1, 3, 6, 100, 7, 7, 9]), np.array([0, 4, 5]), 10)
    np.testing.assert_array_equal(rates, [10, 20, 30, 30, 0, 0, 20, 20])


def test_angles_change_by_the_short_way_round() -> None:
    rates = geometry.rate_of_change(np.array([3.0, -3.0, 3.0]), np.array([0]), 1, wrap=True)
    np.testing.assert_allclose(rates, [2 * np.pi - 6, 6 - 2 * np.pi, 6 - 2 * np.pi])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_motions_laid_end_to_end_do_not_leak_into_each_other(lengths: list[int]) -> None:
    scenes = [body(length, seed=seed) + np.float32(seed) for seed, length in enumerate(lengths)]
    rotations = [sixes(length, seed=seed) for seed, length in enumerate(lengths)]
    starts = tuple(np.cumsum([0, *lengths[:-1]]).tolist())
    together = featured(np.concatenate(scenes), np.concatenate(rotations), starts)
    alone = np.concatenate(
        [featured(scene, rotation) for scene, rotation in zip(scenes, rotations, strict=True)]
    )
    np.testing.assert_array_equal(together, alone)


def test_a_foot_that_slips_under_the_floor_for_a_moment_does_not_move_the_floor() -> None:
    positions = body(100)
    slipped = positions.copy()
    slipped[50, 0, JOINT["left_foot"], 1] -= 3
    height = featured(positions)[..., 1], featured(slipped)[..., 1]  # of the pelvis
    np.testing.assert_allclose(*height, atol=0.02)


def test_columns_lie_side_by_side_and_fill_the_width() -> None:
    for persons in (1, 2):
        for rotations in (True, False):
            columns = list(features.feature_columns(persons, rotations).values())
            assert [block_columns.start for block_columns in columns] == [
                0,
                *(block_columns.stop for block_columns in columns[:-1]),
            ]
            assert (
                features.feature_width(persons, rotations)
                == columns[-1].stop
                == without(body(3, persons), rotations).shape[-1]
            )


def without(positions: np.ndarray, rotations: bool = False) -> np.ndarray:
    """Features with rotations in them or not."""
    config = FeatureConfig(fps=FPS, rotations=rotations)
    return features.make_features(positions, sixes(*positions.shape[:2]), np.array([0]), config)


def test_rotations_stand_as_stored_and_can_be_left_out() -> None:
    positions, rotations = body(6), sixes(6)
    values = featured(positions, rotations)
    np.testing.assert_array_equal(block(values, "rotation"), rotations.reshape(6, 2, -1))
    np.testing.assert_array_equal(
        without(positions), np.delete(values, features.feature_columns(2)["rotation"], axis=-1)
    )


def test_one_person_alone_has_no_relation_and_is_described_like_one_of_two() -> None:
    pair = body(10)
    pair[:, 1, :, 1] += 5  # the other's feet are not the lowest of the scene
    assert "relation" not in features.feature_columns(1)
    relation = features.feature_columns(2)["relation"]
    np.testing.assert_allclose(
        featured(pair[:, :1], sixes(10)[:, :1])[:, 0],
        np.delete(featured(pair, sixes(10)), relation, axis=-1)[:, 0],
        atol=1e-6,
    )


def test_quantiles_of_motions_end_to_end_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    motions = [rng.normal(size=frames).astype(np.float32) for frames in (1, 2, 21, 180)]
    starts = np.cumsum([0, *map(len, motions[:-1])])
    for q in (0.0, 0.05, 0.5, 1.0):
        quantiles = geometry.per_motion_quantile(np.concatenate(motions), starts, q)
        np.testing.assert_allclose(
            quantiles, [np.quantile(motion, q) for motion in motions], rtol=1e-6
        )
