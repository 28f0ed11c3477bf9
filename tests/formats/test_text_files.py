"""Ids match in any form, and text files are read or named with their problem."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motret.formats.text_files import canonical_ids, preview, query_key, read_captions, read_text


def test_numeric_ids_meet_in_any_form():
    assert canonical_ids(["1", "00001", "1\n", " 01 "]) == ("00001",) * 4
    assert canonical_ids(["7", "12"]) == ("07", "12")
    assert canonical_ids(["7", "0012", "123456"], width=3) == ("007", "012", "123456")
    assert canonical_ids(["0", "000"], width=1) == ("0", "0")
    assert canonical_ids([]) == ()


def test_ids_with_letters_stay_as_they_are():
    assert canonical_ids(["M000001", "1a", "٣", "²", "1", " x\n"], width=4) == (
        "M000001",
        "1a",
        "٣",
        "²",
        "0001",
        "x",
    )


@given(st.lists(st.integers(0, 10**12)), st.integers(1, 15))
def test_canonical_numbers_come_back_as_the_same_numbers(numbers, width):
    ids = canonical_ids(map(str, numbers), width)
    assert [int(name) for name in ids] == numbers
    assert all(
        len(name) == max(width, len(str(number))) for name, number in zip(ids, numbers, strict=True)
    )
    assert canonical_ids([f"000{number}\n" for number in numbers], width) == ids


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8)))
def test_canonical_ids_are_their_own_canonical_ids(raw):
    once = canonical_ids(raw)
    assert len(once) == len(raw)
    assert canonical_ids(once) == once


def test_query_keys_ignore_zeros_of_numbers_alone():
    assert query_key("01") == query_key(" 1\n") == "1"
    assert query_key("q01") == "q01"


@pytest.mark.parametrize(
    ("data", "captions"),
    [
        (b"one bows\nthey part\n", ("one bows", "they part")),
        (b"\xef\xbb\xbfone bows\r\n\r\n  they part  \r\n", ("one bows", "they part")),
        (b"one bows\rthey part", ("one bows", "they part")),
        (b"one bows#one/DET bow/VERB#0.0#0.0\n#x#0.0#0.0\n", ("one bows",)),
        (b"one bows # twice#bow#1.5#nan \n", ("one bows # twice",)),
        (b"person #1 pushes person #2\n", ("person #1 pushes person #2",)),
        (b"person #1 bows#person/NOUN #/SYM 1/NUM bow/VERB#0.0#0.0\n", ("person #1 bows",)),
        (b"#1 then #2 then #3 bow\nbow #1 #2 #3\n", ("#1 then #2 then #3 bow", "bow #1 #2 #3")),
        ("beide grüßen\u2028sich".encode(), ("beide grüßen\u2028sich",)),
    ],
)
def test_captions_are_the_lines_that_are_not_blank(tmp_path, data, captions):
    (tmp_path / "a.txt").write_bytes(data)
    assert read_captions(tmp_path / "a.txt") == captions


@pytest.mark.parametrize("data", [b"", b" \r\n\t\n", b"\xef\xbb\xbf", b"#x#0.0#0.0\n"])
def test_a_text_without_caption_is_an_error(expect_error, tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    expect_error(
        lambda: read_captions(tmp_path / "a.txt"),
        tmp_path / "a.txt",
        "no caption",
        "one caption per line",
    )


@pytest.mark.parametrize(
    ("data", "byte"),
    [(b"gr\xfc\xdfen", 2), (b"\xef\xbb\xbfgr\xfcn", 5), ("bow".encode("utf-16"), 0)],
)
def test_a_text_that_is_not_utf8_names_its_first_bad_byte(expect_error, tmp_path, data, byte):
    (tmp_path / "a.txt").write_bytes(data)
    expect_error(
        lambda: read_captions(tmp_path / "a.txt"),
        tmp_path / "a.txt",
        f"not UTF-8 at byte {byte} (",
        "save it as UTF-8",
    )


@pytest.mark.parametrize("read", [read_text, read_captions])
def test_a_missing_text_is_named(expect_error, tmp_path, read):
    path, problem = tmp_path / "gone", "cannot be read: No such file"
    expect_error(lambda: read(path), path, problem, "check that it is there")


def test_a_preview_has_the_first_ids_in_order_and_the_number_of_others():
    assert preview(["10", "9", "b", "a"]) == "9, 10, a and 1 more"
    assert preview(["2", "1"]) == "1, 2"
