"""Captions in the mirror: a caption changes as a whole, comes back when mirrored twice, or is not
mirrored at all."""

import json
import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from motret.data import caption_mirror, captions, side_words
from motret.data.parts import part_texts
from motret.formats import gar
from motret.skeleton import PARTS

HUMAN = Path(__file__).resolve().parents[3] / "shared" / "data" / "human_captions.json"
"""Sentences of people, where they are there: id -> captions."""
SIDE = re.compile(r"\b(left|right)\b", re.I)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("raises the left hand", "raises the right hand"),
        ("Right hand up, LEFT leg", "Left hand up, RIGHT leg"),
        ("left-hand circle, right_arm, right's", "right-hand circle, left_arm, left's"),
        ("steps left and right", "steps right and left"),
        ("steps right then left", "steps left then right"),
        ("turns her head right then left", "turns her head left then right"),
        (
            "crosses left leg in front of right then lowers",
            "crosses right leg in front of left then lowers",
        ),
        (
            "crosses their arms right over left then the opposite",
            "crosses their arms left over right then the opposite",
        ),
        ("puts the right leg behind left and lowers", "puts the left leg behind right and lowers"),
        ("raises the left arm, then right again", "raises the right arm, then left again"),
        ("waves left/right, goes left right left", "waves right/left, goes right left right"),
        ("waves left and right before stopping", "waves right and left before stopping"),
        ("goes clockwise, then counterclockwise", "goes counterclockwise, then clockwise"),
        ("moves leftwards, the rightmost one", "moves rightwards, the leftmost one"),
        ("throws lefts and right hooks", "throws rights and left hooks"),
        ("turns right, then left again", "turns left, then right again"),
        ("turns right behind the other", "turns left behind the other"),
        ("stands on his right behind the chair", "stands on his left behind the chair"),
        ("to the right, after the other", "to the left, after the other"),
        ("is left of the other", "is right of the other"),
        ("has left arm raised", "has right arm raised"),
        ("the person left foot first", "the person right foot first"),
        ("both hands are left and right of the head", "both hands are right and left of the head"),
        ("stands upright and turns right", "stands upright and turns left"),
        ("turns left at a right angle", "turns right at a right angle"),
        ("in the right direction", "in the left direction"),
        ("to the viewer's left", "to the viewer's right"),
        ("lifts its right (our left) arm", "lifts its left (our right) arm"),
        ("makes a slight left to he right", "makes a slight right to he left"),
    ],
)
def test_a_side_is_mirrored_and_comes_back(text: str, mirrored: str) -> None:
    assert caption_mirror.mirror_caption(text) == mirrored
    assert caption_mirror.mirror_caption(mirrored) == text


@pytest.mark.parametrize(
    "text",
    [
        "stands upright",
        "stands up right",
        "in an up right position",
        "right away",
        "sits down and gets right back up",
        "walks right behind the other",
        "right after that, right in front of him and right next to her",
        "sits down, then stops right before the wall",
        "at a right angle",
        "with both arms at right angles",
        "the right way at the right moment",
        "all right",
        "the person left",
        "the person left the room",
        "left the room",
        "has left",
        "is left alone in the corner",
        "bright, aright, cleft and copyright",
        "is frightened, alright, and walks straight",
        "waves with both hands",
        "",
    ],
)
def test_what_is_no_side_stays(text: str) -> None:
    assert caption_mirror.mirror_caption(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "looks right at the other's right",  # straight at, or to the right
        "moves right up a step",
        "steps left and then right back",
        "drops left his right foot",
        "the left foot pops up then right before the hands touch the ground",
        "walks in a left angle curve",  # in the mirror it would be a square corner
        "kicks left up",
        "walks in right andleft direction",
        "raises his rigth hand and left leg",
        "lifts the ledt arm",
        "turns anticlockwise on the left foot",  # "clockwise" comes back as "counterclockwise"
        "from 3 o'clock to 9 o'clock",
        "a strange rIght hand",
    ],
)
def test_what_is_not_certain_is_not_mirrored(text: str) -> None:
    assert caption_mirror.mirror_caption(text) is None


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("counterclockwise", "clockwise"),
        ("counter-clockwise", "clock-wise"),
        ("counter clockwise", "clock wise"),
    ],
)
def test_a_spelling_of_counterclockwise_has_one_of_clockwise_and_comes_back(
    text: str, mirrored: str
) -> None:
    for word, opposite in ((text, mirrored), (mirrored, text)):
        assert caption_mirror.mirror_caption(f"turns {word}") == f"turns {opposite}"
        assert (
            caption_mirror.mirror_caption(f"{word.capitalize()} turns")
            == f"{opposite.capitalize()} turns"
        )


WORDS = """left right Left RIGHT and or then to the his of before after behind back up at in front
angle way hand foot is has person he turns steps clockwise counter-clockwise , . away upright lefts
@ over"""


@hypothesis.given(strategies.lists(strategies.sampled_from(WORDS.split()), max_size=12))
def test_whatever_is_mirrored_comes_back(words: list[str]) -> None:
    text = " ".join(words)
    mirrored = caption_mirror.mirror_caption(text)
    assert mirrored is None or caption_mirror.mirror_caption(mirrored) == text


def test_of_sentences_of_people_few_are_not_mirrored_and_all_others_come_back() -> None:
    if not HUMAN.is_file():
        pytest.skip("the sentences are not here")
    texts = [
        caption
        for captions_of_motion in json.loads(HUMAN.read_text(encoding="utf-8")).values()
        for caption in captions_of_motion
        if SIDE.search(caption)
    ]
    mirrored = [caption_mirror.mirror_caption(caption) for caption in texts]
    back = [
        None if caption is None else caption_mirror.mirror_caption(caption) for caption in mirrored
    ]
    assert (
        sum(
            again is not None and again != caption
            for again, caption in zip(back, texts, strict=True)
        )
        == 0
    )
    assert sum(caption is None for caption in mirrored) <= len(texts) / 100
    unchanged = [
        caption
        for caption, mirror in zip(texts, mirrored, strict=True)
        if mirror is not None and _keeps_a_side(caption, mirror)
    ]
    reasons = re.compile(
        r"right (?:angle|back|before|after|at the end)|up right|is left in|while left his", re.I
    )
    assert len(unchanged) < 25 and all(reasons.search(caption) for caption in unchanged)


def _keeps_a_side(caption: str, mirrored: str) -> bool:
    pairs = zip(SIDE.findall(caption), SIDE.findall(mirrored), strict=True)
    return any(before.lower() == after.lower() for before, after in pairs)


def test_the_work_grows_with_the_text_and_no_faster() -> None:
    def looked_at(count: int) -> int:
        sizes = []
        real = side_words.meaning_of
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                side_words,
                "meaning_of",
                lambda word, context: (
                    sizes.append(len(context.before + context.after)) or real(word, context)
                ),
            )
            caption_mirror.mirror_caption.__wrapped__("the left foot and " * count)
        return sum(sizes)

    assert looked_at(400) < 2.5 * looked_at(200)


def test_the_digest_of_the_rules_is_a_short_word() -> None:
    assert re.fullmatch(r"[0-9a-f]{8,64}", caption_mirror.RULES)


def test_captions_and_part_texts_of_a_challenge_come_back(generated) -> None:
    texts = {
        line
        for file in (generated / "texts").glob("*.txt")
        for line in file.read_text().splitlines()
    }
    parts = gar.read_gar(generated / "texts" / "gar_train.json").parts.values()
    texts |= {text for motion_parts in parts for text in motion_parts.values() if text is not None}
    mirror = caption_mirror.mirror_captions(texts)
    assert (
        mirror.keys() == texts
        and {text for text in texts if caption_mirror.mirror_caption(mirror[text]) != text} == set()
    )
    assert sum(mirror[text] != text for text in texts) > len(texts) / 10
    assert all(
        part_texts.mirror_parts(part_texts.mirror_parts(motion_parts)) == motion_parts
        for motion_parts in parts
    )


def test_part_texts_change_their_slots() -> None:
    parts = dict.fromkeys(PARTS) | {
        "left_arm": "waves the left hand",
        "torso": "leans right",
        "right_leg": "stays",
    }
    expected = {"right_arm": "waves the right hand", "torso": "leans left", "left_leg": "stays"}
    assert part_texts.mirror_parts(parts) == dict.fromkeys(PARTS) | expected


def test_part_texts_of_which_one_cannot_be_mirrored_are_not_mirrored() -> None:
    assert (
        part_texts.mirror_parts(
            dict.fromkeys(PARTS) | {"torso": "leans rigth", "left_leg": "stays"}
        )
        is None
    )


@pytest.mark.parametrize(
    "text",
    ["The first person waves", "the second sits", "person 2 bows", "the former walks", "Person A"],
)
def test_a_caption_may_tell_the_persons_by_their_order(text: str) -> None:
    assert captions.mentions_person_order(text)


@pytest.mark.parametrize(
    "text", ["one person waves while the other sits", "two people dance", "someone takes two steps"]
)
def test_most_captions_do_not(text: str) -> None:
    assert not captions.mentions_person_order(text)
