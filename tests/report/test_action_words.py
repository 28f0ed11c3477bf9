"""Action words of captions whose verbs are known."""

from motret.report import action_words

CAPTIONS = (
    ("a person walks forward", "someone is walking"),
    ("a person waves", "one person waves the left hand"),
    ("two people walk", "both people walk in circles"),
    ("one person waves the right hand", "someone waves"),
    ("a person walks forward", "one walks ahead"),
    ("both of them bow", "two people stand there"),
)
ALL_CAPTIONS = [caption for captions in CAPTIONS for caption in captions]


def test_forms_of_a_verb_are_one_word() -> None:
    for forms in (
        "wave waves waving waved",
        "walk walks walking",
        "hop hops hopping hopped",
        "carry carries carrying",
        "punch punches",
    ):
        assert len({action_words.stem(word) for word in forms.split()}) == 1, forms
    assert action_words.stem("pass") == action_words.stem("passes") and action_words.stem(
        "walk"
    ) != action_words.stem("wave")


def test_action_words_are_verbs_that_several_captions_share() -> None:
    actions = action_words.action_words(ALL_CAPTIONS)
    assert actions == {
        "walk": "walks",
        "wav": "waves",
    }  # bow and stand are rare; hands and forward are stop words
    assert action_words.actions_in("someone WAVES, walks and waves", actions) == ["wav", "walk"]
    assert (
        action_words.action_words([*ALL_CAPTIONS, *["they are tired", "a tired man", "tired"] * 3])
        == actions
    )  # no ending of a verb
    assert list(action_words.action_words(ALL_CAPTIONS, max_words=1)) == ["walk"]
    assert action_words.action_words([]) == {}
