"""Bodies of the generated challenge move as their actions say."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from motret.skeleton import JOINT, MIRROR, PARENTS, split_columns
from motret.synthetic import motion
from motret.synthetic.motion import Act, Scene

FPS = 30


def move(action: str, side: str | None = None, count: int | None = None) -> np.ndarray:
    """Positions (T, 22, 3) of a person who starts at the origin facing +z and does this one
    thing."""
    act = Act(action, side, "normal", count)
    seconds = np.arange(int(FPS * (motion.duration(act) + 0.2))) / FPS
    return motion.perform(
        motion.drive_actor((act,), seconds, 0.0, np.random.default_rng(3)), motion.REST_OFFSETS
    )[0]


def joint(positions: np.ndarray, name: str) -> np.ndarray:
    return positions[:, JOINT[name]]


def test_forward_kinematics_bends_the_knee_backwards_and_leaves_the_rest() -> None:
    straight = np.tile(np.eye(3), (1, 22, 1, 1))
    bent = straight.copy()
    bent[0, JOINT["left_knee"]] = motion.rotation_matrices(np.radians([90.0, 0.0, 0.0]))
    pelvis = np.array([[1.0, 2.0, 3.0]])
    rest, knee = (
        motion.pose_joints(rotations, motion.REST_OFFSETS, pelvis)[0]
        for rotations in (straight, bent)
    )
    np.testing.assert_allclose(
        knee[JOINT["left_ankle"]], rest[JOINT["left_knee"]] + (0, 0, -0.4), atol=1e-12
    )
    moved = np.abs(knee - rest).max(axis=-1) > 1e-12
    assert set(np.flatnonzero(moved)) == {JOINT["left_ankle"], JOINT["left_foot"]}
    np.testing.assert_allclose(
        rest[JOINT["left_wrist"]], pelvis[0] + (0.175, -0.065, 0), atol=1e-12
    )


def test_stored_rotations_give_the_stored_positions(generated: Path) -> None:
    """The pelvis's rotation is read off the hips and the first spine joint; the bones are those of
    the first frame."""
    for path in sorted((generated / "motions").iterdir()):
        positions, six = (stored.astype(np.float64) for stored in split_columns(np.load(path)))
        first, second = six[..., :3], six[..., 3:]
        local = np.stack([first, second, np.cross(first, second)], axis=-1)
        for person in range(2):
            p = positions[:, person]
            across, up = p[:, 1] - p[:, 2], p[:, 3] - p[:, 0]
            across, up = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (across, up))
            pelvis = np.stack([across, up, np.cross(across, up)], axis=-1)
            world, bones, rebuilt = [pelvis], [np.zeros(3)], [p[:, 0]]
            for j in range(1, 22):
                parent = PARENTS[j]
                bones.append(world[parent][0].T @ (p[0, j] - p[0, parent]))
                rebuilt.append(rebuilt[parent] + world[parent] @ bones[j])
                world.append(world[parent] @ local[:, person, j - 1])
            np.testing.assert_allclose(np.stack(rebuilt, axis=1), p, atol=1e-4)
            all_local = np.concatenate([pelvis[:, None], local[:, person]], axis=1)
            np.testing.assert_allclose(
                motion.pose_joints(all_local, np.array(bones), p[:, 0]), p, atol=1e-4
            )


def test_rotation_matrices_are_rotations_about_z_after_x_after_y() -> None:
    angles = np.random.default_rng(0).uniform(-3, 3, (5, 3))
    only = [np.where(np.arange(3) == axis, angles, 0.0) for axis in range(3)]
    about_x, about_y, about_z = (motion.rotation_matrices(a) for a in only)
    np.testing.assert_allclose(
        motion.rotation_matrices(angles), about_z @ about_x @ about_y, atol=1e-12
    )
    np.testing.assert_allclose(
        about_y @ np.swapaxes(about_y, -1, -2), np.tile(np.eye(3), (5, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(
        motion.rotation_matrices(np.array([0, np.pi / 2, 0])) @ (0, 0, 1), (1, 0, 0), atol=1e-12
    )


@pytest.mark.parametrize(("side", "other"), list(permutations(motion.SIDES)))
def test_what_one_side_does_the_other_leaves(side: str, other: str) -> None:
    raised, kicked = move("raise", side), move("kick", side, 1)
    assert (
        joint(raised, f"{side}_wrist")[:, 1].max() > 1.7
        and joint(raised, f"{other}_wrist")[:, 1].max() < 1.1
    )
    assert (
        joint(kicked, f"{side}_ankle")[:, 2].max() > 0.5
        and np.abs(joint(kicked, f"{other}_ankle")[:, 2]).max() < 0.1
    )
    towards = 1 if side == "left" else -1  # the left is +x of a person who faces +z
    assert towards * joint(move("sidestep", side), "pelvis")[-1, 0] > 0.5
    assert towards * joint(move("lean", side), "head")[:, 0].sum() > 0
    hips = joint(move("turn", side), "left_hip") - joint(move("turn", side), "right_hip")
    assert (
        hips[0, 0] > 0 > hips[-1, 0] and towards * hips[len(hips) // 2, 2] < 0
    )  # a left hip goes back in a turn to the left


def test_the_body_moves_as_the_action_says() -> None:
    assert (
        joint(move("walk_forward"), "pelvis")[-1, 2] > 1
        and joint(move("walk_backward"), "pelvis")[-1, 2] < -1
    )
    assert np.abs(joint(move("march"), "pelvis")[-1, (0, 2)]).max() < 0.1
    assert (
        joint(move("squat", count=1), "pelvis")[:, 1].min()
        < 0.75
        < 0.9
        < joint(move("bow"), "pelvis")[:, 1].min()
    )
    assert joint(move("bow"), "head")[:, 1].min() < 1.3
    jump = move("jump", count=2)
    airborne = np.minimum(joint(jump, "left_foot"), joint(jump, "right_foot"))[:, 1] > 0.15
    assert np.count_nonzero(np.diff(airborne.astype(int)) == 1) == 2
    clap = move("clap")
    assert (
        np.linalg.norm(joint(clap, "left_wrist") - joint(clap, "right_wrist"), axis=-1).min() < 0.15
    )
    on_head = move("head")[33]
    assert np.linalg.norm(on_head[JOINT["left_wrist"]] - on_head[JOINT["head"]]) < 0.2


@pytest.mark.parametrize("action", motion.MOVES)
def test_feet_are_on_the_floor_and_no_joint_is_under_it(action: str) -> None:
    spec = motion.ACTIONS[action]
    positions = move(action, "left" if spec.sided else None, 1 if spec.counted else None)
    lowest = positions[..., 1].min(axis=1)
    assert lowest.min() > 0 and (lowest < 0.1).mean() > (0.5 if action == "jump" else 0.999)


@pytest.mark.parametrize("action", ["kick", "squat", "bow", "clap", "knee"])
def test_who_stays_in_place_has_a_foot_that_does_not_slide(action: str) -> None:
    side = "left" if motion.ACTIONS[action].sided else None
    foot = joint(move(action, side, 1), "right_foot")[:, (0, 2)]
    assert np.ptp(foot, axis=0).max() < 0.1


def test_mirroring_swaps_the_sides_and_twice_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    angles = rng.normal(size=(4, 22, 3))
    assert np.array_equal(motion.mirror_angles(motion.mirror_angles(angles)), angles)
    pelvis = np.zeros((4, 3))
    body, mirrored = (
        motion.pose_joints(motion.rotation_matrices(a), motion.REST_OFFSETS, pelvis)
        for a in (angles, motion.mirror_angles(angles))
    )
    np.testing.assert_allclose(mirrored, body[:, MIRROR] * (-1, 1, 1), atol=1e-12)


@pytest.mark.parametrize("relation", motion.RELATIONS)
def test_the_two_stand_as_the_relation_says_and_never_in_one_another(relation: str) -> None:
    scene = Scene(((Act("walk_forward"),), (Act("walk_backward"),)), relation)
    positions, _ = split_columns(motion.act_out(scene, FPS, np.random.default_rng(1)))
    pelvis = positions[:, :, 0][..., (0, 2)]
    between = pelvis[:, 1] - pelvis[:, 0]
    assert np.linalg.norm(between, axis=-1).min() > motion.MIN_DISTANCE - 0.01
    across = (positions[0, :, 1] - positions[0, :, 2])[:, (0, 2)]
    ahead = np.stack([-across[:, 1], across[:, 0]], axis=-1)  # a quarter turn from the left
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    to_other = np.array([between[0], -between[0]]) / np.linalg.norm(between[0])
    sees = (ahead * to_other).sum(axis=-1)  # cosine between heading and the other
    expected = {"facing": (1, 1), "back": (-1, -1), "side": (0, 0), "behind": (-1, 1)}.get(relation)
    if expected:
        np.testing.assert_allclose(sorted(sees), expected, atol=0.1)
    else:
        assert np.linalg.norm(between[0]) > 4


def test_either_person_is_stored_first() -> None:
    scene = Scene(((Act("raise", "left"),), (Act("stand"),)), "side")
    raising_person = set()
    for seed in range(12):
        positions, _ = split_columns(motion.act_out(scene, FPS, np.random.default_rng(seed)))
        raising_person.add(int(positions[:, :, JOINT["left_wrist"], 1].max(axis=0).argmax()))
    assert raising_person == {0, 1}
