"""Clauses about body parts are found in captions, and only where a part is named."""

import pytest

from motret.data.parts import caption_parts
from motret.skeleton import PARTS


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a person raises the right hand.", {"right_arm": "a person raises the right hand"}),
        (
            "One kicks with the left leg while the other claps.",
            {"left_leg": "One kicks with the left leg"},
        ),
        (
            "waves the right arm and kicks the left foot",
            {"right_arm": "waves the right arm", "left_leg": "kicks the left foot"},
        ),
        (
            "he lifts both arms, then bends forward",
            {
                "right_arm": "he lifts both arms",
                "left_arm": "he lifts both arms",
                "torso": "bends forward",
            },
        ),
        (
            "moves the left arm and leg up and down",
            dict.fromkeys(("left_arm", "left_leg"), "moves the left arm and leg up and down"),
        ),
        (
            "shakes the left and right hands",
            dict.fromkeys(("left_arm", "right_arm"), "shakes the left and right hands"),
        ),
        (
            "two people clap their hands",
            dict.fromkeys(("left_arm", "right_arm"), "two people clap their hands"),
        ),
        (
            "puts hands on the hips",
            dict.fromkeys(("left_arm", "right_arm"), "puts hands on the hips"),
        ),
        ("jumps with both feet", dict.fromkeys(("left_leg", "right_leg"), "jumps with both feet")),
        (
            "raises the right hand, lowers the right hand",
            {"right_arm": "raises the right hand, lowers the right hand"},
        ),
        ("hops on the LEFT leg", {"left_leg": "hops on the LEFT leg"}),
        ("turns around to the left", {"torso": "turns around to the left"}),
        ("twists the upper body", {"torso": "twists the upper body"}),
        (
            "raises the right hand above the head",
            {"right_arm": "raises the right hand above the head"},
        ),
        (
            "brings the right elbow to the left knee",
            {"right_arm": "brings the right elbow to the left knee"},
        ),
        (
            "walks backwards, arms swinging",
            dict.fromkeys(("left_arm", "right_arm"), "arms swinging"),
        ),
        ("lift their right arms", {"right_arm": "lift their right arms"}),
        ("lift the left arms", {"left_arm": "lift the left arms"}),
        ("raises the left-hand", {"left_arm": "raises the left-hand"}),
    ],
)
def test_a_caption_that_names_a_part_gives_its_clause(
    caption: str, expected: dict[str, str]
) -> None:
    assert caption_parts.parts_from_caption(caption) == dict.fromkeys(PARTS) | expected


@pytest.mark.parametrize(
    "caption",
    [
        "starts to run right away", "stands upright", "she left the room", "waves a hand",
        "someone left, hand in hand with a friend", "steps to the right hand side",
        "walks on the left-hand side", "walks to the left", "one person hands the other a bottle",
        "stands two feet away", "walks on foot", "wipes a waist high surface",
        "handles a charm in the alarming farmhouse", "the brightest", "kneels", "both people walk",
        "", "...",
    ],
)  # fmt: skip
def test_words_that_only_look_like_a_part_name_none(caption: str) -> None:
    assert caption_parts.parts_from_caption(caption) == dict.fromkeys(PARTS)
