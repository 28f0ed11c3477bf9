"""Part texts: from every source, cached, and compared by a digest."""

import json
from dataclasses import replace

import pytest

import helpers
from motret.data.parts import describer, part_texts, phrases
from motret.errors import DataError
from motret.tuning import tuned_values
from motret.utils import files

CAPTIONS = (("one waves the right arm",), ("someone walks", "the left leg kicks"), ("they stand",))


def data_of(tmp_path):
    return helpers.training_data(captions=CAPTIONS), tmp_path / "data"


def chosen(folder, **values):
    return helpers.config(data_dir=folder, work_dir=folder.parent / "work", use_gar=True, **values)


def write_gar(folder, entries):
    (folder / "texts").mkdir(parents=True)
    (folder / "texts" / "gar_train.json").write_text(json.dumps(entries))


def test_ids_in_any_form_find_their_motion_and_what_is_missing_is_undefined(
    tmp_path, capsys
) -> None:
    data, folder = data_of(tmp_path)
    entries = [
        {"id": 0, "part_descriptions": {"torso": "bends"}},
        {"id": "2\n", "part_descriptions": {"left_leg": "kicks", "torso": "undefined"}},
    ]
    write_gar(folder, entries)
    found = part_texts.load_part_texts(chosen(folder), data)
    assert [{part: text for part, text in parts.items() if text} for parts in found] == [
        {"torso": "bends"},
        {},
        {"left_leg": "kicks"},
    ]
    assert "2 of 15 parts are described" in capsys.readouterr().out


def test_captions_that_name_a_part_tell_of_it(tmp_path) -> None:
    data, folder = data_of(tmp_path)
    found = part_texts.load_part_texts(chosen(folder, part_text="caption"), data)
    assert [sorted(part for part, text in parts.items() if text) for parts in found] == [
        ["right_arm"],
        ["left_leg"],
        [],
    ]


def test_a_file_that_describes_none_of_the_motions_is_a_fault(tmp_path) -> None:
    data, folder = data_of(tmp_path)
    write_gar(folder, [{"id": 77, "part_descriptions": {"torso": "bends"}}])
    with pytest.raises(
        DataError,
        match=r"gar_train\.json: no part of any training motion is described \(correct its ids",
    ):
        part_texts.load_part_texts(chosen(folder), data)
    with pytest.raises(DataError, match=r"gar_train\.json"):
        part_texts.load_part_texts(chosen(tmp_path / "elsewhere", part_text="gar"), data)


def told_of(root, fps):
    """What `part_texts.load_part_texts` says of the motions of a data folder at so many frames a
    second."""
    return part_texts.load_part_texts(
        chosen(root, part_text="motion", fps=fps), helpers.load(root, fps=fps)
    )


def test_texts_that_are_kept_are_computed_again_at_another_frame_rate_and_by_other_rules(
    own_challenge, monkeypatch
) -> None:
    first, slower = told_of(own_challenge, 30.0), told_of(own_challenge, 15.0)
    assert first != slower
    with monkeypatch.context() as patch:
        patch.setattr(phrases, "LIMITS", replace(phrases.LIMITS, above_head=9.0))
        lower = told_of(own_challenge, 30.0)
        assert any("above the head" in str(own) for own in first) and not any(
            "above the head" in str(own) for own in lower
        )
    with monkeypatch.context() as patch:
        patch.setitem(phrases.MIN_AMPLITUDE, "up", 9.0)
        assert told_of(own_challenge, 30.0) not in (first, lower)
    monkeypatch.setattr(describer, "describe_training", None)  # nothing is computed again
    assert told_of(own_challenge, 30.0) == first and told_of(own_challenge, 15.0) == slower


def test_the_digest_tells_source_and_texts_apart_and_nothing_else(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "data"
    entry = {
        "id": 1,
        "caption": "someone bends",
        "part_descriptions": {"torso": "bends", "left_leg": "kicks"},
    }

    def digest(entries, name="gar_train.json", **values):
        (folder / "texts").mkdir(parents=True, exist_ok=True)
        (folder / "texts" / name).write_text(json.dumps(entries, indent=values.pop("indent", None)))
        return part_texts.part_texts_digest(chosen(folder, **values))

    motion = part_texts.part_texts_digest(chosen(folder))
    assert motion.startswith("motion ") and motion == part_texts.part_texts_digest(
        chosen(folder, part_text="motion")
    )
    assert motion != part_texts.part_texts_digest(chosen(folder, fps=20.0))
    first = digest([entry])
    assert first.startswith("gar ") and first == digest([entry | {"caption": "another"}], indent=2)
    assert first != digest([entry | {"part_descriptions": {"torso": "leans"}}])
    assert first == digest([entry])
    assert first != digest([entry | {"id": 2}], name="gar_val.json")
    assert part_texts.part_texts_digest(chosen(folder, part_text="motion")) == motion
    assert part_texts.part_texts_digest(chosen(folder, part_text="caption")) == "caption"
    monkeypatch.setattr(phrases, "LIMITS", replace(phrases.LIMITS, above_head=9.0))
    assert part_texts.part_texts_digest(chosen(folder, part_text="motion")) != motion
    (folder / "texts" / "gar_train.json").write_text("no JSON")
    assert (
        part_texts.part_texts_digest(helpers.config(data_dir=folder)) is None
    )  # a run without part texts does not look at them
    with pytest.raises(DataError, match=r"gar_train\.json: not JSON"):
        part_texts.part_texts_digest(chosen(folder))


def test_values_tuned_with_other_part_texts_are_ignored_with_a_message(tmp_path) -> None:
    folder, best = tmp_path / "data", tmp_path / "best.json"
    config = chosen(folder, variant="sgar", tuned=str(best), folds_dir=tmp_path)
    files.write_json(tmp_path / "folds.json", {"data": "data-a", "hash": "folds-a"})
    belongs = tuned_values.tuning_identity(config, "data-a", "folds-a")
    confirmed = {"tuned_on": [0], "confirmed_on": [1]}
    files.write_json(best, {"values": {"lr": 0.01}, "belongs": belongs} | confirmed)
    assert tuned_values.find_tuned_values(config).values == {"lr": 0.01}
    write_gar(folder, [{"id": 0, "part_descriptions": {"torso": "bends"}}])
    values, told = (found := tuned_values.find_tuned_values(config)).values, found.message
    assert (
        values == {}
        and f"ignored, it was made for part texts {belongs['part texts']}, here gar " in told
    )
    older = {name: value for name, value in belongs.items() if name != "part texts"}
    files.write_json(best, {"values": {"lr": 0.01}, "belongs": older} | confirmed)
    assert tuned_values.find_tuned_values(config).values == {
        "lr": 0.01
    }  # of before they were kept: not compared
    plain = helpers.config(variant="sgar", folds_dir=tmp_path)
    assert tuned_values.tuning_identity(plain, "data-a", "folds-a") == older
