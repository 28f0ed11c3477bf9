"""Captions of the generated challenge are true of their scenes, and name what they state."""

import numpy as np
import pytest

from motret.synthetic import captions, motion
from motret.synthetic.captions import Content, Mention
from motret.synthetic.motion import Act, Scene


def test_every_caption_is_true_of_its_scene_and_states_the_side_it_names() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        scene = motion.draw_scene(rng)
        for caption in captions.draw_captions(scene, rng):
            assert captions.is_consistent(caption.content, scene)
            mentions = [mention for person in caption.content.persons for mention in person]
            sides = {mention.side for mention in mentions if mention.side}
            assert {side for side in motion.SIDES if f" {side}" in caption.text} == sides
            is_slow = any(mention.speed == "slow" for mention in mentions)
            assert ("slowly" in caption.text) == is_slow
            assert "{" not in caption.text


def test_every_action_has_words_and_every_mention_names_its_action() -> None:
    assert captions.PHRASES.keys() == captions.PART_WORDS.keys() == motion.ACTIONS.keys()
    phrases = [phrase for options in captions.PHRASES.values() for phrase in options]
    assert len(phrases) == len(set(phrases))
    for name, action in motion.ACTIONS.items():
        assert [("{side}" in phrase) for phrase in captions.PHRASES[name]][:2] == [
            False,
            action.sided,
        ]


def test_the_verb_of_several_people_loses_its_ending() -> None:
    plurals = {
        "waves a hand": "wave a hand",
        "punches": "punch",
        "does a squat": "do a squat",
        "raises a knee": "raise a knee",
        "circles both arms": "circle both arms",
    }
    assert {phrase: captions.plural(phrase) for phrase in plurals} == plurals


def test_part_descriptions_name_the_side_and_leave_the_rest_undefined() -> None:
    wave, stand = (Act("wave", "right"),), (Act("stand"),)
    assert captions.describe_parts(Scene((wave, stand), "side")) == {
        "right_arm": "the right arm of one person waves with the hand up",
        **dict.fromkeys(("left_arm", "right_leg", "left_leg", "torso"), "undefined"),
    }
    parts = captions.describe_parts(
        Scene(((Act("kick", "left", count=1), Act("bow")), wave), "side")
    )
    assert parts["left_leg"] == "the left leg of one person kicks forward"
    assert parts["right_leg"] == "the right leg of one person carries the body"
    assert (
        captions.describe_parts(Scene((wave, wave), "side"))["right_arm"]
        == "the right arm of both people waves with the hand up"
    )


@pytest.mark.parametrize(
    ("content", "true"),
    [
        (Content(()), True),
        (Content(((Mention("punch"),),)), True),
        (Content(((Mention("punch", side="left"),),)), False),
        (Content(((Mention("punch", "right", "fast", 2),),)), True),
        (Content(((Mention("punch", count=3),),)), False),
        (Content(((Mention("punch", speed="slow"),),)), False),
        (Content(((Mention("punch"), Mention("bow")),)), True),
        (Content(((Mention("bow"), Mention("punch")),)), False),
        (Content(((Mention("bow"),), (Mention("squat"),))), True),
        (Content(((Mention("squat"),), (Mention("bow"),))), True),
        (Content(((Mention("bow"),), (Mention("punch"),))), False),
        (Content(((Mention("punch"),),), both=True), False),
        (Content(((Mention("squat"),),), relation="facing"), True),
        (Content(((Mention("squat"),),), relation="back"), False),
    ],
)
def test_a_caption_is_consistent_with_a_scene_if_all_it_states_is_true(
    content: Content, true: bool
) -> None:
    scene = Scene(
        ((Act("punch", "right", "fast", 2), Act("bow")), (Act("squat", count=1),)), "facing"
    )
    assert captions.is_consistent(content, scene) is true


def test_what_is_stated_of_both_must_be_true_of_both() -> None:
    both = Content(((Mention("bow"),),), both=True)
    assert captions.is_consistent(
        both, Scene(((Act("bow"),), (Act("squat", count=1), Act("bow"))), "side")
    )
