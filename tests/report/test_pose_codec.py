"""Motions as a page draws them: what packing keeps, and the view of a scene."""

import base64
import zlib

import numpy as np
import pytest

from helpers import body, swapped, turned
from motret.data.geometry import heading
from motret.report import pose_codec
from motret.skeleton import JOINT, N_JOINTS


def unpacked(packed: pose_codec.PackedMotion) -> np.ndarray:
    """Positions in a packed motion, decoded number by number as in the page's script."""
    content = zlib.decompress(base64.b64decode(packed.data))
    count = len(content) // 2
    width = count // packed.frames
    numbers = []
    for index in range(count):
        before = numbers[index - width] if index >= width else 0
        change = content[index] | content[count + index] << 8
        numbers.append((before + change + 2**15) % 2**16 - 2**15)
    return np.reshape(numbers, (packed.frames, packed.persons, N_JOINTS, 3)) * pose_codec.STEP


@pytest.mark.parametrize("persons", [1, 2])
def test_packing_keeps_every_position_to_a_millimetre(persons: int) -> None:
    motion = body(50, persons)
    packed = pose_codec.pack_motion(motion, fps=30)
    np.testing.assert_allclose(
        unpacked(packed), pose_codec.center_and_resample(motion, 30), atol=0.5001 * pose_codec.STEP
    )
    assert (packed.frames, packed.persons, packed.seconds) == (
        17,
        persons,
        pytest.approx(50 / 30, abs=0.01),
    )


def test_positions_beyond_the_range_of_int16_are_clipped() -> None:
    motion = body(12)
    motion[6:] += 1000
    assert np.abs(unpacked(pose_codec.pack_motion(motion, fps=30))).max() == pytest.approx(
        2**15 * pose_codec.STEP
    )


def test_at_most_twenty_seconds_are_kept_at_ten_frames_a_second() -> None:
    motion = body(45, 1)
    np.testing.assert_array_equal(
        np.diff(pose_codec.center_and_resample(motion, 15), axis=0).shape[0], 29
    )
    assert len(pose_codec.center_and_resample(body(25 * 15, 1), 15)) == 200
    assert pose_codec.pack_motion(body(25 * 15, 1), 15).seconds == 25
    frames = motion[[0, 2, 3]] - motion[0]  # 15 fps: times 0, 0.1, 0.2 are frames 0, 1.5 -> 2, 3
    scene = pose_codec.center_and_resample(motion, 15)
    np.testing.assert_allclose(
        np.linalg.norm(scene[:3] - scene[0], axis=-1), np.linalg.norm(frames, axis=-1), atol=1e-5
    )


def test_position_and_heading_of_a_scene_change_nothing() -> None:
    motion = body(30)
    elsewhere = turned(motion, 2.1) + np.array([7, 0.5, -3])
    np.testing.assert_allclose(
        pose_codec.center_and_resample(elsewhere, 30),
        pose_codec.center_and_resample(motion, 30),
        atol=1e-5,
    )


def test_the_up_axis_becomes_y() -> None:
    motion = body(30)
    z_up = np.stack([motion[..., 0], -motion[..., 2], motion[..., 1]], axis=-1)
    np.testing.assert_allclose(
        unpacked(pose_codec.pack_motion(z_up, 30, "+z")),
        unpacked(pose_codec.pack_motion(motion, 30)),
        atol=pose_codec.STEP + 1e-6,
    )


def test_two_persons_stand_along_x_on_the_floor_the_first_on_the_left() -> None:
    scene = pose_codec.center_and_resample(body(60), 30)
    offset = (scene[:, 1] - scene[:, 0])[:, JOINT["pelvis"]].mean(axis=0)
    assert offset[0] > 0.3 and offset[2] == pytest.approx(0, abs=1e-6)
    assert np.percentile(scene[..., 1].min(axis=(1, 2)), 5) == pytest.approx(0, abs=1e-6)
    exchanged = pose_codec.center_and_resample(
        swapped(body(60).reshape(60, -1)).reshape(60, 2, N_JOINTS, 3), 30
    )
    np.testing.assert_allclose(exchanged[:, 0], scene[:, 1] * (-1, 1, -1), atol=1e-5)


def test_one_person_and_two_in_one_place_face_the_viewer() -> None:
    single = body(30, 1)
    assert heading(pose_codec.center_and_resample(single, 30)[0, 0]) == pytest.approx(0, abs=1e-6)
    assert heading(
        pose_codec.center_and_resample(np.repeat(single, 2, axis=1), 30)[0, 0]
    ) == pytest.approx(0, abs=1e-6)


def test_radius_and_reach_go_to_the_farthest_joint() -> None:
    motion = body(30)
    motion[..., 0] += np.arange(30)[:, None, None] / 5
    packed = pose_codec.pack_motion(motion, 30)
    points = unpacked(packed)[..., [0, 2]]
    assert packed.radius == pytest.approx(np.linalg.norm(points, axis=-1).max(), abs=0.01)
    centre = points[:, :, JOINT["pelvis"]].mean(axis=1)[:, None, None]
    assert packed.reach == pytest.approx(np.linalg.norm(points - centre, axis=-1).max(), abs=0.01)
    assert packed.reach < packed.radius - 1
