"""What a caption's words say of the two persons."""

import pytest

from motret.data.captions import names_both_persons


@pytest.mark.parametrize(
    "caption",
    [
        "One waves while the other bows.",
        "someone walks and the other person sits down",
        "two people shake hands",
        "both bow",
        "they push each other",
        "a man hugs a woman",
        "the first person kicks, the second jumps back",
        "a person claps. person 2 turns around",
        "one raises the left hand while the other walks off",
        "one of them runs and another crouches",
    ],
)
def test_a_caption_that_tells_of_a_second_person_names_both(caption: str) -> None:
    assert names_both_persons(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "one person waves",
        "the first person walks in a straight line",
        "a person raises both arms and waves with both hands",
        "someone hops on one leg, then on the other leg",
        "a person puts one foot in front of the other",
        "someone lifts an arm like a young person",
        "a person walks, the two are facing each other",
        "one person squats, the two are one behind the other",
        "a person walks to the other side and jumps a second time",
        "",
    ],
)
def test_limbs_sides_places_and_comparisons_are_no_second_person(caption: str) -> None:
    assert not names_both_persons(caption)
