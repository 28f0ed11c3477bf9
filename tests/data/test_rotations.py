"""The convention of 6D rotations is found from the positions whatever it is, and a mirrored body
stands where the mirror shows it."""

import dataclasses

import numpy as np
import pytest

import helpers
import prepare
from helpers import sixes
from motret.data import rotations
from motret.data.rotations import CONVENTIONS, Convention, FittedConvention
from motret.skeleton import JOINTS, MIRROR, PARENTS, join_columns, split_columns
from motret.synthetic import motion

FRAMES = 24
IDS = [
    "-".join(
        [
            convention.turns,
            "rows" if convention.rows else "columns",
            *(["alternating"] if convention.alternating else []),
        ]
    )
    for convention in CONVENTIONS
]


def plain_kinematics(local, offsets, turns):
    """The twin of forward kinematics, joint by joint: (T, 22, 3) from the pelvis, local (T, 22, 3,
    3) with the pelvis first."""
    positions = np.zeros((*local.shape[:2], 3))
    for t, turned in enumerate(local):
        world = [turned[0]]
        for joint, parent in list(enumerate(PARENTS))[1:]:
            from_pelvis = turns == "limb" and "collar" in JOINTS[joint]
            world.append(world[0 if from_pelvis else parent] @ turned[joint])
            positions[t, joint] = (
                positions[t, parent] + world[parent if turns == "joint" else joint] @ offsets[joint]
            )
    return positions


def written(local, convention):
    """Matrices (..., 3, 3) as six numbers, the way a convention has it."""
    pair = np.stack(
        [local[..., 0, :], local[..., 1, :]] if convention.rows else [local[..., 0], local[..., 1]],
        axis=-1,
    )  # (..., 3, 2)
    return (pair if convention.alternating else pair.swapaxes(-1, -2)).reshape(*local.shape[:-2], 6)


def somebody(convention, seed=0):
    """A symmetric body that bends every joint: positions (T, 1, 22, 3), rotations (T, 1, 21, 6),
    matrices (T, 22, 3, 3)."""
    rng = np.random.default_rng(seed)
    phase, speed, reach = (
        rng.uniform(0, 6, (22, 3)),
        rng.uniform(1, 3, (22, 3)),
        rng.uniform(0.2, 0.7, (22, 3)),
    )
    angles = reach * np.sin(np.linspace(0, 6, FRAMES)[:, None, None] * speed + phase)
    local = motion.rotation_matrices(angles)
    path = np.linspace(0, 1, FRAMES)[:, None, None] * [0.5, 0.0, 1.0] + [0.0, 0.9, 0.0]
    positions = plain_kinematics(local, motion.REST_OFFSETS, convention.turns) + path
    return positions[:, None], written(local[:, 1:], convention)[:, None], local


@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_a_convention_is_found_from_the_positions(convention, monkeypatch) -> None:
    monkeypatch.setattr(rotations, "FRAMES", FRAMES)
    fitted = rotations.find_convention([somebody(convention)[:2]])
    assert fitted.convention == convention and fitted.fits and fitted.axis == 0
    assert fitted.error < 0.005 and fitted.unevenness < 0.01


@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_rotations_are_read_as_they_were_written(convention) -> None:
    _, six, local = somebody(convention)
    np.testing.assert_allclose(
        rotations.matrices(1.7 * six[:, 0], convention), local[:, 1:], atol=1e-12
    )


@pytest.mark.parametrize("convention", CONVENTIONS, ids=IDS)
def test_mirrored_rotations_put_the_joints_where_the_mirror_shows_them(convention) -> None:
    positions, six, local = somebody(convention)
    fitted = FittedConvention(convention, 0.0, 0, 0.0)
    mirrored = six[:, 0, MIRROR[1:] - 1] * fitted.signs()
    flip = np.array([-1.0, 1.0, 1.0])
    pelvis = np.diag(flip) @ local[:, 0] @ np.diag(flip)
    again = np.concatenate([pelvis[:, None], rotations.matrices(mirrored, convention)], axis=1)
    mirrored_positions = plain_kinematics(again, motion.REST_OFFSETS, convention.turns)
    expected = (positions[:, 0] - positions[:, 0, :1])[:, MIRROR] * flip
    np.testing.assert_allclose(mirrored_positions, expected, atol=1e-9)


def test_a_body_that_lies_along_another_axis_at_rest_is_mirrored_along_it() -> None:
    turned = np.array(
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    )  # x becomes y: sides along y at rest
    convention = Convention()
    positions, _, local = somebody(convention)
    inside = turned @ local[:, 1:] @ turned.T
    fitted = rotations.find_convention([(positions, written(inside, convention)[:, None])])
    assert fitted.fits and fitted.axis == 1
    np.testing.assert_array_equal(fitted.signs(), [1, -1, 1, -1, 1, -1])


def test_rotations_that_say_nothing_of_the_positions_fit_no_convention() -> None:
    positions, _, _ = somebody(Convention())
    fitted = rotations.find_convention([(positions, sixes(FRAMES, 1))])
    assert not fitted.fits and fitted.error > rotations.MAX_ERROR


def test_rotations_of_an_uneven_body_at_rest_cannot_be_mirrored() -> None:
    fitted = rotations.find_convention([somebody(Convention())[:2]])
    assert not dataclasses.replace(fitted, unevenness=0.1).fits


def test_the_files_of_a_data_set_are_looked_at(generated) -> None:
    fitted = rotations.find_convention_in_files(sorted((generated / "motions").glob("*.npy"))[:2])
    assert fitted.convention == Convention() and fitted.axis == 0 and fitted.fits
    assert "first two columns" in str(fitted)


def test_positions_in_another_unit_fit_as_well(generated, tmp_path) -> None:
    file = sorted((generated / "motions").glob("*.npy"))[0]
    positions, six = split_columns(np.load(file))
    np.save(tmp_path / "a.npy", join_columns(positions * 1000, six))
    assert (
        rotations.find_convention_in_files([tmp_path / "a.npy"], 0.001).fits
        and not rotations.find_convention_in_files([tmp_path / "a.npy"]).fits
    )


def test_rotations_that_fit_no_convention_are_said_so_by_prepare(tmp_path, capsys) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2"])  # rotations of any numbers
    assert prepare.main(helpers.data_flags(root)) == 0
    problem = "none of the known ones, so rotations cannot be mirrored"
    assert f"rotation convention: {problem}; nearest: " in capsys.readouterr().out
    root = helpers.write_data(tmp_path / "none" / "data", ["1", "2"])
    assert prepare.main([*helpers.data_flags(root), "--no_rotations"]) == 0
    assert "rotation convention" not in capsys.readouterr().out
