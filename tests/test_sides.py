"""Sides change places in captions where a side is meant, whole words only, and come back when mirrored twice."""

import pytest

from motret import captions, gar, part_texts, sides
from motret.skeleton import PARTS


@pytest.mark.parametrize(
    ("said", "mirrored"),
    [
        ("raises the left hand", "raises the right hand"),
        ("Right hand up, LEFT leg", "Left hand up, RIGHT leg"),
        ("left-hand circle, right_arm, right's", "right-hand circle, left_arm, left's"),
        ("steps left and right", "steps right and left"),
        ("goes clockwise, then counterclockwise", "goes counterclockwise, then clockwise"),
        ("moves leftwards, the rightmost one", "moves rightwards, the leftmost one"),
        ("turns right, then left again", "turns left, then right again"),
        ("turns right behind the other", "turns left behind the other"),
        ("stands on his right behind the chair", "stands on his left behind the chair"),
        ("to the right, after the other", "to the left, after the other"),
        ("is left of the other", "is right of the other"),
        ("has left arm raised", "has right arm raised"),
        ("both hands are left and right of the head", "both hands are right and left of the head"),
        ("stands upright and turns right", "stands upright and turns left"),
        ("looks right at the other's right", "looks right at the other's left"),
        ("in the right direction", "in the left direction"),
    ],
)
def test_a_side_is_mirrored_and_comes_back(said: str, mirrored: str) -> None:
    assert sides.mirror(said) == mirrored
    assert sides.mirror(mirrored) == said


@pytest.mark.parametrize(
    "said",
    [
        "stands upright",
        "right away",
        "walks right behind the other",
        "right after that, right in front of him and right next to her",
        "at a right angle",
        "the right way at the right moment",
        "all right",
        "left the room",
        "has left",
        "is left alone in the corner",
        "bright, aright, cleft and copyright",
        "waves with both hands",
    ],
)
def test_what_is_no_side_stays(said: str) -> None:
    assert sides.mirror(said) == said


@pytest.mark.parametrize("spelling", ["counter-clockwise", "anticlockwise", "anti-clockwise", "counter clockwise"])
def test_every_spelling_of_counterclockwise_is_mirrored(spelling: str) -> None:
    assert sides.mirror(f"turns {spelling}") == "turns clockwise"
    assert sides.mirror(f"{spelling.capitalize()} turns") == "Clockwise turns"


def test_captions_and_part_texts_of_a_challenge_come_back(generated) -> None:
    said = {line for file in (generated / "texts").glob("*.txt") for line in file.read_text().splitlines()}
    parts = gar.read_gar(generated / "texts" / "gar_train.json").parts.values()
    said |= {text for own in parts for text in own.values() if text is not None}
    assert {text for text in said if sides.mirror(sides.mirror(text)) != text} == set()
    assert sum(sides.mirror(text) != text for text in said) > len(said) / 10
    assert all(part_texts.mirror(part_texts.mirror(own)) == own for own in parts)


def test_part_texts_change_their_slots() -> None:
    own = dict.fromkeys(PARTS) | {"left_arm": "waves the left hand", "torso": "leans right", "right_leg": "stays"}
    wanted = {"right_arm": "waves the right hand", "torso": "leans left", "left_leg": "stays"}
    assert part_texts.mirror(own) == dict.fromkeys(PARTS) | wanted


@pytest.mark.parametrize("said", ["The first person waves", "the second sits", "person 2 bows", "the former walks", "Person A"])
def test_a_caption_may_tell_the_persons_by_their_order(said: str) -> None:
    assert captions.tells_order(said)


@pytest.mark.parametrize("said", ["one person waves while the other sits", "two people dance", "someone takes two steps"])
def test_most_captions_do_not(said: str) -> None:
    assert not captions.tells_order(said)
