"""Part descriptions are read in whatever form they come, written for people, and found in captions
only where they are."""

import json
from pathlib import Path

import pytest

from motret.errors import DataError
from motret.formats import gar
from motret.skeleton import PARTS

REAL = Path(__file__).parents[2].parent / "shared" / "data"
TEXTS = {part: f"{part.replace('_', ' ')} moves" for part in PARTS}


def entry(name: object = "00001", **parts: object) -> dict[str, object]:
    return {"id": name, "caption": "a person moves", "part_descriptions": TEXTS | parts}


def read(folder: Path, content: object, id_width: int | None = 5) -> gar.PartTexts:
    file = folder / "gar_train.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return gar.read_gar(file, id_width)


def note(texts: gar.PartTexts) -> str:
    assert len(texts.notes) == 1
    return texts.notes[0]


def test_a_list_and_an_object_by_id_are_read_alike(tmp_path: Path) -> None:
    rows = [entry("00001"), entry("00002", torso="undefined")]
    by_id = {row["id"]: {key: row[key] for key in ("caption", "part_descriptions")} for row in rows}
    texts = read(tmp_path, rows)
    assert texts == read(tmp_path, by_id)
    assert texts.parts == {"00001": TEXTS, "00002": TEXTS | {"torso": None}}
    assert texts.captions == dict.fromkeys(("00001", "00002"), "a person moves")
    assert texts.notes == ()
    assert read(tmp_path, entry()).parts == {"00001": TEXTS}


@pytest.mark.parametrize("raw", [1, "1", "00001", "1\n", " 01 "])
def test_an_id_comes_in_any_form(tmp_path: Path, raw: object) -> None:
    assert list(read(tmp_path, [entry(raw)]).parts) == ["00001"]
    assert list(read(tmp_path, [entry(raw), entry("M00001")], None).parts)[1] == "M00001"


def test_without_a_width_the_widest_id_of_the_file_sets_it(tmp_path: Path) -> None:
    assert list(read(tmp_path, [entry(1), entry("0012")], None).parts) == ["0001", "0012"]


@pytest.mark.parametrize(
    "value", ["undefined", "Undefined", " UNDEFINED. ", "undefined .", "", "  ", "."]
)
def test_undefined_and_empty_are_no_text_and_nothing_odd(tmp_path: Path, value: str) -> None:
    texts = read(tmp_path, [entry(left_arm=value)])
    assert texts.parts["00001"]["left_arm"] is None
    assert texts.notes == ()


def test_text_that_mentions_undefined_things_stays(tmp_path: Path) -> None:
    assert (
        read(tmp_path, [entry(torso="Twisting and\n turning,  undefined")]).parts["00001"]["torso"]
        == "Twisting and turning, undefined"
    )


@pytest.mark.parametrize("value", [None, 3, 1.5, True, ["raises"], {"text": "raises"}])
def test_a_value_that_is_no_text_is_undefined_and_counted(tmp_path: Path, value: object) -> None:
    texts = read(tmp_path, [entry("7", left_leg=value), entry("8")])
    assert texts.parts["00007"] == TEXTS | {"left_leg": None}
    assert note(texts) == "1 parts that are no text, read as undefined: 00007"


def test_a_missing_part_is_undefined(tmp_path: Path) -> None:
    texts = read(tmp_path, [{"id": 1, "caption": "x", "part_descriptions": {"torso": "bends"}}])
    assert texts.parts["00001"] == dict.fromkeys(PARTS) | {"torso": "bends"}


@pytest.mark.parametrize("content", [None, "raises", ["raises"]])
def test_an_entry_without_part_descriptions_has_none_and_is_counted(
    tmp_path: Path, content: object
) -> None:
    texts = read(tmp_path, [{"id": 1, "caption": "x", "part_descriptions": content}])
    assert texts.parts["00001"] == dict.fromkeys(PARTS)
    assert note(texts).startswith("1 entries without part descriptions")


@pytest.mark.parametrize("name", ["right arm", "right-arm", "Right_Arm", " RIGHT  ARM "])
def test_a_part_is_known_by_its_words(tmp_path: Path, name: str) -> None:
    texts = read(tmp_path, [{"id": 1, "part_descriptions": {name: "waves"}}])
    assert texts.parts["00001"]["right_arm"] == "waves"
    assert texts.captions == {"00001": None}


def test_one_part_written_in_two_ways_has_the_first_text(tmp_path: Path) -> None:
    texts = read(
        tmp_path, [{"id": 1, "part_descriptions": {"right arm": "waves", "right_arm": "hangs"}}]
    )
    assert texts.parts["00001"]["right_arm"] == "waves"
    assert "the first counts: 00001" in note(texts)


def test_what_is_unknown_is_ignored_and_counted(tmp_path: Path) -> None:
    texts = read(tmp_path, [entry("2") | {"source": "x", "split": 1}, entry("3", head="nods")])
    assert texts.parts["00003"] == TEXTS
    assert texts.notes == (
        "2 unknown keys, ignored: 00002, 00002",
        "1 unknown parts, ignored: 00003",
    )


def test_of_one_id_the_first_entry_counts(tmp_path: Path) -> None:
    texts = read(
        tmp_path,
        [entry("1", torso="first"), entry(1, torso="second"), entry("00001\n", torso="third")],
    )
    assert texts.parts["00001"]["torso"] == "first"
    assert note(texts) == "2 entries with the id of an earlier one, left out: 00001, 00001"


def test_of_one_key_the_first_value_counts(tmp_path: Path) -> None:
    texts = read(
        tmp_path,
        '{"1": {"part_descriptions": {"torso": "first", "torso": "again"}}, '
        '"1": {"part_descriptions": {"torso": "second"}}}',
    )
    assert texts.parts["00001"]["torso"] == "first"
    assert note(texts).startswith("2 keys twice")


def test_entries_that_cannot_be_placed_are_left_out_and_counted(tmp_path: Path) -> None:
    nameless = {"caption": "x", "part_descriptions": TEXTS}
    texts = read(
        tmp_path,
        [
            entry("4"),
            "text",
            5,
            None,
            nameless,
            nameless | {"id": None},
            nameless | {"id": " "},
            nameless | {"id": True},
        ],
    )
    assert list(texts.parts) == ["00004"]
    assert [line.partition(":")[0] for line in texts.notes] == [
        "3 entries that are no object, left out",
        "4 entries without an id, left out",
    ]


def test_text_that_utf_8_cannot_hold_is_repaired(tmp_path: Path) -> None:
    text = read(
        tmp_path, '[{"id": 1, "part_descriptions": {"torso": "bends \\ud800 down"}}]'
    ).parts["00001"]["torso"]
    assert text == "bends ? down"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "3", "null", '"x"', "[1, 2]", '{"data": [1]}', "[" * 100_000]
)
def test_a_file_without_entries_is_an_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"not JSON|no entry") as caught:
        read(tmp_path, content)
    assert caught.value.path == str(tmp_path / "gar_train.json")


def test_a_file_that_is_missing_or_not_utf_8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        gar.read_gar(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes('[{"id": 1, "caption": "é"}]'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        gar.read_gar(tmp_path / "latin.json")
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([entry()]).encode())
    assert gar.read_gar(tmp_path / "marked.json", 5).parts == {"00001": TEXTS}


def test_what_is_written_is_read_again_and_can_be_edited(tmp_path: Path) -> None:
    file = tmp_path / "texts" / "gar.json"
    parts = {"00001": TEXTS | {"left_arm": "lève la main"}, "M2": dict.fromkeys(PARTS)}
    captions = {"00001": "someone waves", "M2": None}
    gar.write_gar(file, [(name, captions[name], texts) for name, texts in parts.items()])
    lines = file.read_text(encoding="utf-8").splitlines()
    assert '   "left_arm": "lève la main",' in lines
    assert lines.count('   "torso": "undefined"') == 1
    again = gar.read_gar(file, 5)
    assert again.parts == parts
    assert again.captions == captions
    assert again.notes == ()
    assert [path.name for path in file.parent.iterdir()] == ["gar.json"]


def test_a_file_that_cannot_be_written_whole_is_left_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "gar.json"
    gar.write_gar(file, [("1", None, TEXTS)])
    before = file.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        gar.write_gar(file, [("1", "half \ud800 a pair", TEXTS)])
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["gar.json"]


@pytest.mark.parametrize(
    ("name", "number"), [("gar_train_full_mistral.json", 4886), ("gar_val_full_mistral.json", 300)]
)
def test_real_files_are_read_without_a_remark(name: str, number: int) -> None:
    if not (REAL / name).is_file():
        pytest.skip("the real files are not here")
    texts = gar.read_gar(REAL / name, 5)
    assert len(texts.parts) == number == len(texts.captions)
    assert texts.notes == ()
    values = [value for parts in texts.parts.values() for value in parts.values()]
    assert not any(value.lower() == "undefined" for value in values if value)
    assert 0 < values.count(None) < len(values) / 10
