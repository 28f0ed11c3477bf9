"""Attention figures: curves over time, and key poses that look like the persons of the motion."""

from pathlib import Path

import numpy as np
import pytest

from helpers import body, check, has, rest_pose, turned
from motret.report import attention_plots, plot_style
from motret.report.attention_plots import PosedMotion, TokenAttention, project_to_side_view
from motret.skeleton import JOINT, PARTS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("persons", [1, 2])
def test_attention_is_drawn_with_key_poses_of_all_persons(tmp_path: Path, persons: int) -> None:
    weights = RNG.dirichlet(np.ones(7 * persons), persons).reshape(persons, persons, 7)
    attention = TokenAttention(weights, np.arange(8) * 0.2, "layer 1 of 1")
    motion = PosedMotion(body(47, persons), 30.0)
    caption = "it costs $5 and <b>all</b> {this} \\frac " * 12
    attention_plots.plot_attention(tmp_path / "a.png", "body", caption, attention, motion)
    picture = check(tmp_path / "a.png", 3.13 + 1.67 * persons)
    assert has(picture, plot_style.ORANGE) and has(picture, plot_style.BLUE) == (persons == 2)
    if persons == 1:
        leg = PosedMotion(motion.positions, 30.0, highlighted=PARTS["left_leg"])
        attention_plots.plot_attention(tmp_path / "b.png", "body", caption, attention, leg)
        assert (check(tmp_path / "b.png") < 0.9).sum() > (picture < 0.9).sum()  # a thick leg


def test_figures_are_as_far_apart_as_the_persons_up_to_a_limit() -> None:
    near = body(30)
    near = near - near[:, :, :1] + np.array([[[0, 0.95, 0]], [[1.0, 0.95, 0]]])
    seen = project_to_side_view(near, yaw=0.0, pitch=0.0)
    np.testing.assert_allclose(seen[..., 1], near[..., 1])
    np.testing.assert_allclose(np.abs(seen[:, 1, 0, 0] - seen[:, 0, 0, 0]), 1.0, atol=0.02)
    np.testing.assert_allclose(seen[:, :, 0, 0].mean(axis=1), 0, atol=1e-9)
    far = project_to_side_view(near + np.array([[[0, 0, 0]], [[20.0, 0, 0]]]))
    distance = np.linalg.norm(far[:, 1, 0] - far[:, 0, 0], axis=-1)
    assert (distance <= attention_plots.MAX_DISTANCE + 1e-6).all()
    assert (np.ptp(far[..., 1], axis=-1) > 1.4).all()


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
def test_the_left_hand_is_on_the_left_of_who_faces_away_from_the_camera(angle: float) -> None:
    """Seen from above, toes below the ankles point to the camera, and left is then on the right."""
    scene = turned(np.stack([rest_pose(), rest_pose() + np.eye(3)[0]]), angle)[None]
    across, up = project_to_side_view(scene, yaw=0.0, pitch=0.3)[0, 0].T
    flat_up = project_to_side_view(scene, yaw=0.0, pitch=0.0)[0, 0][:, 1] * np.cos(0.3)
    lowered = (flat_up - up)[JOINT["left_foot"]] - (flat_up - up)[JOINT["left_ankle"]]
    left_on_right = across[JOINT["left_wrist"]] - across[JOINT["right_wrist"]]
    assert abs(lowered) > 0.01 and (lowered > 0) == (left_on_right > 0)
