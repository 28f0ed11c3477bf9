"""The competition's files: what is read from whole ones, and the one line that each fault gets."""

import io
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motret.errors import ConfigError, DataError
from motret.formats import submission
from motret.formats.challenge import SkippedFile, read_training
from motret.formats.motion_files import motion_shape, parse_motion, read_motion
from motret.formats.queries import Query, read_queries
from motret.formats.submission import read_ground_truth, read_submission, write_submission
from motret.formats.text_files import canonical_ids, query_key, read_captions


@pytest.fixture(autouse=True)
def warnings_are_errors():
    """A warning that no test asked for fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def faulty(call, file, *words):
    """The fault that `call` raises: one line that starts with the file and holds the words, the mend in brackets at its end."""
    with pytest.raises(DataError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{file}: ")
    assert re.search(r" \(.+\)$", line)
    for word in words:
        assert word in line
    return caught.value


def motion(frames=20, columns=384):
    return np.linspace(-1, 1, frames * columns, dtype=np.float32).reshape(frames, columns)


def npy_bytes(array, **how):
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def write_training(root, ids=("00001", "00002", "00003"), listed=None):
    (root / "motions").mkdir(parents=True)
    (root / "texts").mkdir()
    for name in ids:
        np.save(root / "motions" / f"{name}.npy", motion())
        (root / "texts" / f"{name}.txt").write_text(f"two people, {name}\nthey move\n")
    if listed is not None:
        (root / "train.txt").write_text("".join(f"{name}\n" for name in listed))
    return root


def write_query(folder, numbers=range(1, 33), text="they bow", name="text.txt"):
    folder.mkdir(parents=True)
    if text is not None:
        (folder / name).write_text(text)
    for number in numbers:
        (folder / f"motion_{number}.npy").write_bytes(npy_bytes(motion(15, 192)))
    return folder


# ---- ids


def test_numeric_ids_meet_in_any_form():
    assert canonical_ids(["1", "00001", "1\n", " 01 "]) == ("00001",) * 4
    assert canonical_ids(["7", "12"]) == ("07", "12")
    assert canonical_ids(["7", "0012", "123456"], width=3) == ("007", "012", "123456")
    assert canonical_ids(["0", "000"], width=1) == ("0", "0")
    assert canonical_ids([]) == ()


def test_ids_with_letters_stay_as_they_are():
    assert canonical_ids(["M000001", "1a", "٣", "²", "1", " x\n"], width=4) == ("M000001", "1a", "٣", "²", "0001", "x")


@given(st.lists(st.integers(0, 10**12)), st.integers(1, 15))
def test_canonical_numbers_come_back_as_the_same_numbers(numbers, width):
    ids = canonical_ids(map(str, numbers), width)
    assert [int(name) for name in ids] == numbers
    assert all(len(name) == max(width, len(str(number))) for name, number in zip(ids, numbers, strict=True))
    assert canonical_ids([f"000{number}\n" for number in numbers], width) == ids


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8)))
def test_canonical_ids_are_their_own_canonical_ids(raw):
    once = canonical_ids(raw)
    assert len(once) == len(raw)
    assert canonical_ids(once) == once


def test_query_keys_ignore_zeros_of_numbers_alone():
    assert query_key("01") == query_key(" 1\n") == "1"
    assert query_key("q01") == "q01"


# ---- motions


@pytest.mark.parametrize("columns", [192, 384])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "<i4", "u1"])
def test_a_motion_of_any_number_type_becomes_float32(tmp_path, columns, dtype):
    raw = (motion(16, columns) * 100).astype("<i4").clip(0, 100).astype(dtype)
    np.save(tmp_path / "a.npy", raw)
    got = read_motion(tmp_path / "a.npy", min_frames=16)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_array_equal(got, raw.astype(np.float32))
    assert motion_shape(tmp_path / "a.npy") == (16, columns)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_npy_version_and_order_is_read(version):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy remarks on its newer versions
        np.lib.format.write_array(stream, np.asfortranarray(motion()), version=version)
    np.testing.assert_array_equal(parse_motion(stream.getvalue(), Path("a.npy")), motion())


BAD_MOTIONS = {
    "empty": (b"", "empty file"),
    "text": (b"0.1 0.2 0.3", "not an .npy file"),
    "npz": (b"PK\x03\x04" + b"\0" * 60, "not an .npy file"),
    "pickle": (pickle.dumps([1.0]), "not an .npy file"),
    "header cut": (npy_bytes(motion())[:40], "header is broken or cut short"),
    "unknown version": (b"\x93NUMPY\x09\x00" + npy_bytes(motion())[8:], "header is broken or cut short"),
    "data cut": (npy_bytes(motion())[:-1], f"cut short: {128 + 20 * 384 * 4 - 1} bytes of {128 + 20 * 384 * 4}"),
    "huge claim": (npy_bytes(motion())[:128].replace(b"(20, 384), }", b"(9999999999999, 384), }"), "cut short"),
    "1-D": (npy_bytes(np.zeros(384, np.float32)), "1-D array (384,)"),
    "3-D": (npy_bytes(np.zeros((20, 22, 3), np.float32)), "3-D array (20, 22, 3)"),
    "columns": (npy_bytes(np.zeros((20, 262), np.float32)), "262 columns, expected 192 (persons: 1) or 384 (persons: 2)"),
    "no frames": (npy_bytes(np.zeros((0, 384), np.float32)), "no frames"),
    "object": (npy_bytes(np.full((20, 384), None), allow_pickle=True), "object array, which is never unpickled"),
    "strings": (npy_bytes(np.full((20, 384), "a")), "values of type <U1"),
    "complex": (npy_bytes(np.zeros((20, 384), np.complex64)), "values of type complex64"),
    "records": (npy_bytes(np.zeros((20, 384), [("x", "<f4")])), "values of type"),
}


@pytest.mark.parametrize("name", BAD_MOTIONS)
def test_a_broken_motion_is_named_by_data_and_by_header(tmp_path, name):
    data, problem = BAD_MOTIONS[name]
    path = tmp_path / "00007.npy"
    path.write_bytes(data)
    for read in (read_motion, motion_shape):
        faulty(lambda read=read: read(path), path, problem, "leave it out")


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e39, "1e+39 is beyond float32")])
def test_the_first_value_that_is_no_number_is_named(value, said):
    raw = motion().astype(np.float64)
    raw[3, 7] = value
    raw[3, 9] = raw[11, 0] = np.nan
    faulty(lambda: parse_motion(npy_bytes(raw), Path("a.npy")), "a.npy", said, "frame 3, column 7", "leave it out")


def test_a_motion_shorter_than_asked_is_a_fault():
    data = npy_bytes(motion(5))
    assert len(parse_motion(data, Path("a.npy"), min_frames=5)) == 5
    faulty(lambda: parse_motion(data, Path("a.npy"), min_frames=6), "a.npy", "5 frames, at least 6", "a shorter patch")


def test_an_object_array_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    faulty(lambda: parse_motion(npy_bytes(np.full((20, 384), Trap()), allow_pickle=True), Path("a.npy")), "a.npy", "object array")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("read", [read_motion, motion_shape, read_captions, read_ground_truth, read_submission])
def test_a_file_that_is_not_there_is_named(tmp_path, read):
    faulty(lambda: read(tmp_path / "gone"), tmp_path / "gone", "cannot be read: No such file", "check that it is there")


@given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
def test_any_damage_gives_a_motion_or_a_fault(place, damage):
    data = npy_bytes(motion(2, 192))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy remarks on headers of old Python
        try:
            got = parse_motion(data[:place] + damage + data[place + len(damage) :], Path("a.npy"))
        except DataError as fault:
            assert str(fault).startswith("a.npy: ")
        else:
            assert got.shape[1] in (192, 384)
            assert np.isfinite(got).all()


# ---- captions


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
def test_captions_are_the_lines_that_say_something(tmp_path, data, captions):
    (tmp_path / "a.txt").write_bytes(data)
    assert read_captions(tmp_path / "a.txt") == captions


@pytest.mark.parametrize("data", [b"", b" \r\n\t\n", b"\xef\xbb\xbf", b"#x#0.0#0.0\n"])
def test_a_text_without_caption_is_a_fault(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    faulty(lambda: read_captions(tmp_path / "a.txt"), tmp_path / "a.txt", "no caption", "one caption per line")


@pytest.mark.parametrize(("data", "byte"), [(b"gr\xfc\xdfen", 2), (b"\xef\xbb\xbfgr\xfcn", 5), ("bow".encode("utf-16"), 0)])
def test_a_text_that_is_not_utf8_names_its_first_wrong_byte(tmp_path, data, byte):
    (tmp_path / "a.txt").write_bytes(data)
    faulty(lambda: read_captions(tmp_path / "a.txt"), tmp_path / "a.txt", f"not UTF-8 at byte {byte} (", "save it as UTF-8")


# ---- the training set


def test_the_training_set_keeps_the_order_of_train_txt(tmp_path):
    root = write_training(tmp_path / "data", listed=["3", "00001\r"])
    got = read_training(root)
    assert got.root == root
    assert got.ids == ("00003", "00001")
    assert got.paths == (root / "motions/00003.npy", root / "motions/00001.npy")
    assert got.captions[1] == ("two people, 00001", "they move")
    assert got.groups is None
    assert got.skipped == ()


def test_without_train_txt_every_id_with_motion_and_text_is_taken(tmp_path):
    root = write_training(tmp_path / "data", ids=["10", "9", "b", "a"])
    np.save(root / "motions/7.npy", motion())
    (root / "texts/8.txt").write_text("nobody moves")
    (root / "texts/gar_train.json").write_text("[]")
    (root / "motions/._9.npy").write_bytes(b"a Mac's shadow")
    got = read_training(root)
    assert got.ids == ("09", "10", "a", "b")
    assert got.skipped == (
        SkippedFile(str(root / "motions"), "1 without text: 07"),
        SkippedFile(str(root / "texts"), "1 without motion: 08"),
    )
    faulty(lambda: read_training(root, strict=True), root / "motions", "without text: 07", "train.txt")


def test_the_width_of_ids_is_the_widest_file_name_or_the_one_given(tmp_path):
    root = write_training(tmp_path / "data", ids=["1", "0002"], listed=["000000001", "2"])
    assert read_training(root).ids == ("0001", "0002")
    assert read_training(root, id_width=6).ids == ("000001", "000002")


def test_restricting_keeps_the_order_and_every_column_in_step(tmp_path):
    root = write_training(tmp_path / "data", listed=["3", "2", "1"])
    (root / "groups.csv").write_text("id,group\n1,a\n2,b\n3,c\n")
    got = read_training(root).subset(["00001", "00003"])
    assert got.ids == ("00003", "00001")
    assert [path.stem for path in got.paths] == ["00003", "00001"]
    assert [captions[0] for captions in got.captions] == ["two people, 00003", "two people, 00001"]
    assert got.groups == {"00003": "c", "00001": "a"}
    faulty(lambda: got.subset(["00002"]), root, "no training motion 00002", "folds")


@pytest.mark.parametrize("gone", ["", "motions", "texts"])
def test_a_missing_folder_says_where_data_comes_from(tmp_path, gone):
    root = write_training(tmp_path / "data")
    (root / gone).rename(tmp_path / "elsewhere")
    faulty(lambda: read_training(root), root / gone, "no such folder", "--data_dir", "`python solution/sample.py`")


@pytest.mark.parametrize("text", ["", "\n \r\n"])
def test_an_empty_train_txt_is_fatal(tmp_path, text):
    root = write_training(tmp_path / "data")
    (root / "train.txt").write_text(text)
    faulty(lambda: read_training(root), root / "train.txt", "no id in it", "one per line")


@pytest.mark.parametrize("name", ["../00001", "a/b", "a\\b", "..", "/etc/passwd"])
def test_an_id_that_is_a_path_is_fatal(tmp_path, name):
    root = write_training(tmp_path / "data", listed=["00001", name])
    faulty(lambda: read_training(root), root / "train.txt", f"id {name!r} is a path", "bare ids")


@pytest.mark.parametrize(
    "listed",
    [
        ["00002.npy", "00001.npy"],
        ["00002.txt", "00001.TXT"],
        ["2.npy", "2.txt", "1.npy", "1.txt"],
        ["00002", "00002.npy", "00001"],
    ],
)
def test_a_list_may_name_files(tmp_path, listed):
    root = write_training(tmp_path / "data", ids=["00001", "00002", "00003"], listed=listed)
    got = read_training(root, strict=True)
    assert got.ids == ("00002", "00001") and got.skipped == ()


def test_a_file_that_is_listed_twice_is_said(tmp_path):
    root = write_training(tmp_path / "data", ids=["00001", "00002"], listed=["00001.npy", "00002.npy", "00001.npy"])
    assert read_training(root).skipped == (SkippedFile(str(root / "train.txt"), "id 00001 is listed more than once"),)


def test_faults_in_training_files_are_skipped_and_listed(tmp_path):
    root = write_training(tmp_path / "data", ids=["1", "2", "3", "4"], listed=["1", "2", "3", "4", "5", "01"])
    (root / "motions/2.npy").unlink()
    (root / "texts/3.txt").unlink()
    (root / "texts/4.txt").write_bytes(b"gr\xfcn")
    got = read_training(root)
    assert got.ids == ("1",)
    assert got.skipped == (
        SkippedFile(str(root / "train.txt"), "id 2 has no motion"),
        SkippedFile(str(root / "train.txt"), "id 3 has no text"),
        SkippedFile(str(root / "train.txt"), "id 5 has no motion and no text"),
        SkippedFile(str(root / "train.txt"), "id 01 is listed more than once"),
        SkippedFile(str(root / "texts/4.txt"), "not UTF-8 at byte 2"),
    )


def no_motion(root):
    (root / "motions/00002.npy").unlink()
    return root / "train.txt", "id 2 has no motion"


def no_text(root):
    (root / "texts/00002.txt").unlink()
    return root / "train.txt", "id 2 has no text"


def empty_text(root):
    (root / "texts/00002.txt").write_text("\n")
    return root / "texts/00002.txt", "no caption"


def listed_twice(root):
    (root / "train.txt").write_text("1\n2\n0001\n")
    return root / "train.txt", "id 0001 is listed more than once"


@pytest.mark.parametrize("spoil", [no_motion, no_text, empty_text, listed_twice])
def test_strict_makes_each_skip_fatal(tmp_path, spoil):
    root = write_training(tmp_path / "data", listed=["1", "2"])
    file, problem = spoil(root)
    assert len(read_training(root).skipped) == 1
    faulty(lambda: read_training(root, strict=True), file, problem)


@pytest.mark.parametrize("strict", [False, True])
def test_an_empty_dataset_shows_ids_of_every_side(tmp_path, strict):
    root = write_training(tmp_path / "data", listed=["id_1", "id_2"])
    for path in (root / "texts").iterdir():
        path.rename(path.with_stem(f"M{path.stem}"))
    sides = ("empty dataset", "motions/ ids e.g. [00001, 00002, 00003]", "texts/ ids e.g. [M00001, M00002, M00003]")
    faulty(lambda: read_training(root, strict=strict), root, *sides, "train.txt ids e.g. [id_1, id_2]", "--id_width")
    (root / "train.txt").unlink()
    assert "train.txt ids" not in faulty(lambda: read_training(root, strict=strict), root, *sides, "--id_width").problem


def test_a_dataset_of_faulty_texts_is_empty_and_names_the_first(tmp_path):
    root = write_training(tmp_path / "data", ids=["1"])
    (root / "texts/1.txt").write_text("")
    faulty(lambda: read_training(root), root, "empty dataset", f"first problem: {root / 'texts/1.txt'}: no caption")


@pytest.mark.parametrize(("folder", "suffix"), [("motions", ".npy"), ("texts", ".txt")])
@pytest.mark.parametrize("strict", [False, True])
def test_two_files_of_one_id_are_fatal(tmp_path, folder, suffix, strict):
    root = write_training(tmp_path / "data")
    (root / folder / f"1{suffix}").write_bytes((root / folder / f"00001{suffix}").read_bytes())
    faulty(
        lambda: read_training(root, strict=strict), root / folder / f"1{suffix}", f"same id 00001 as 00001{suffix}", "remove one of the two"
    )


def test_linked_files_are_files(tmp_path):
    root = write_training(tmp_path / "data", ids=["1", "2"])
    for folder, suffix in (("motions", ".npy"), ("texts", ".txt")):
        source = root / folder / f"1{suffix}"
        (root / folder / f"3{suffix}").symlink_to(source)
        (root / folder / f"4{suffix}").hardlink_to(source)
    assert read_training(root).ids == ("1", "2", "3", "4")
    (root / "motions/2.npy").unlink()
    (root / "motions/2.npy").symlink_to(root / "gone.npy")
    assert read_training(root).skipped == (SkippedFile(str(root / "texts"), "1 without motion: 2"),)


def test_groups_are_matched_by_canonical_id(tmp_path):
    root = write_training(tmp_path / "data")
    (root / "groups.csv").write_bytes(b"\xef\xbb\xbfgroup, id ,note\r\ng1,1,x\r\n\r\ng1,0002,y\r\ng2,00003\r\ng9,77,z\r\ng1,1,again\r\n")
    assert read_training(root).groups == {"00001": "g1", "00002": "g1", "00003": "g2"}


def test_an_id_without_group_gets_its_own_aloud(tmp_path):
    root = write_training(tmp_path / "data")
    (root / "groups.csv").write_text("id,group\n1,g1\n")
    with pytest.warns(UserWarning, match=r"groups.csv: no group for 2 of 3 training ids: 00002, 00003 \(each gets a group of its own\)"):
        groups = read_training(root).groups
    assert list(groups) == ["00001", "00002", "00003"]
    assert len(set(groups.values())) == 3


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("", "no column id, group", "write the header id,group"),
        ("id,cluster\n1,a\n", "no column group", "write the header id,group"),
        ("id,group\n1,a\n00001,b\n", "line 3: id 00001 is in two groups", "keep one"),
        ("id,group\n1,a\n\n2,\n", "line 4, column group: empty", "fill it in"),
        ("id,group\n1\n", "line 2, column group: empty", "fill it in"),
        ('id,group\n1,"a\n', "line 2: not CSV", "quotes"),
    ],
)
def test_faults_in_groups_csv_are_fatal(tmp_path, text, problem, fix):
    root = write_training(tmp_path / "data")
    (root / "groups.csv").write_text(text)
    faulty(lambda: read_training(root), root / "groups.csv", problem, fix)


# ---- the queries


def test_queries_come_by_number_and_their_candidates_too(tmp_path):
    for name in ("10", "9", "02", "extra"):
        write_query(tmp_path / "test" / name, text=f"query {name}\nagain")
    (tmp_path / "test/gt.csv").write_text("query_id,candidate\n")
    (tmp_path / "test/.ipynb_checkpoints").mkdir()
    (tmp_path / "test/9/._motion_1.npy").write_bytes(b"a Mac's shadow")
    got = read_queries(tmp_path / "test")
    assert [query.id for query in got] == ["02", "9", "10", "extra"]
    assert got[0].captions == ("query 02", "again")
    assert got[1].candidates == tuple(range(1, 33))
    assert got[1].paths[9] == tmp_path / "test/9/motion_10.npy"


def test_query_txt_is_read_where_text_txt_is_not(tmp_path):
    folder = write_query(tmp_path / "test/1", name="query.txt")
    assert read_queries(tmp_path / "test")[0].captions == ("they bow",)
    (folder / "text.txt").write_text("they bow\r\n")
    assert read_queries(tmp_path / "test")[0].captions == ("they bow",)
    (folder / "text.txt").write_text("they sit")
    faulty(lambda: read_queries(tmp_path / "test"), folder, "text.txt and query.txt differ", "keep the right one")


def test_zero_padded_candidates_are_numbers(tmp_path):
    folder = write_query(tmp_path / "test/1", numbers=[f"{number:02d}" for number in range(1, 33)])
    assert read_queries(tmp_path / "test")[0].candidates == tuple(range(1, 33))
    (folder / "motion_7.npy").write_bytes(b"")
    faulty(lambda: read_queries(tmp_path / "test"), folder / "motion_7.npy", "same candidate 7 as motion_07.npy", "remove one")


@pytest.mark.parametrize(
    "name", ["motion_x.npy", "motion_.npy", "motion_0.npy", "motion_1 (1).npy", "motion_motion_2.npy", "motion_-1.npy"]
)
def test_a_candidate_without_number_is_named(tmp_path, name):
    folder = write_query(tmp_path / "test/1")
    (folder / name).write_bytes(b"")
    faulty(lambda: read_queries(tmp_path / "test"), folder / name, "not a candidate's name", "motion_<k>.npy")


@pytest.mark.parametrize(
    ("spoiled", "numbers", "text", "problem", "fix"),
    [
        ("1", range(1, 33), None, "no text.txt", "needs its text"),
        ("1", [], "they bow", "no motion_<k>.npy", "needs its candidates"),
        ("1/text.txt", range(1, 33), " ", "no caption", "one caption per line"),
    ],
)
def test_a_faulty_query_is_fatal(tmp_path, spoiled, numbers, text, problem, fix):
    write_query(tmp_path / "test/1", numbers, text)
    write_query(tmp_path / "test/2")
    faulty(lambda: read_queries(tmp_path / "test"), tmp_path / "test" / spoiled, problem, fix)


def test_a_query_text_that_is_not_utf8_is_fatal(tmp_path):
    folder = write_query(tmp_path / "test/1")
    (folder / "text.txt").write_bytes(b"\xff")
    faulty(lambda: read_queries(tmp_path / "test"), folder / "text.txt", "not UTF-8 at byte 0", "save it as UTF-8")


def test_a_test_folder_without_queries_is_a_fault(tmp_path):
    faulty(lambda: read_queries(tmp_path / "test"), tmp_path / "test", "no such folder", "--data_dir")
    (tmp_path / "test/__MACOSX").mkdir(parents=True)
    faulty(lambda: read_queries(tmp_path / "test"), tmp_path / "test", "no query folder", "motion_<k>.npy")


def test_two_folders_of_one_query_are_a_fault(tmp_path):
    write_query(tmp_path / "test/1")
    write_query(tmp_path / "test/01")
    assert "the same query id as" in faulty(lambda: read_queries(tmp_path / "test"), tmp_path / "test/1", "remove one").problem


def test_each_kind_of_odd_pool_is_one_warning(tmp_path):
    whole = tuple(range(1, 33))
    pools = {"1": whole, "2": (3,), "3": range(1, 11), "4": (*range(1, 9), 40), "5": (1, 2), "6": whole}
    for name, numbers in pools.items():
        write_query(tmp_path / "test" / name, numbers)
    (tmp_path / "test/__MACOSX").mkdir()
    with pytest.warns(UserWarning) as caught:
        queries = read_queries(tmp_path / "test")
    assert {query.id: query.candidates for query in queries} == {name: tuple(numbers) for name, numbers in pools.items()}
    folder = tmp_path / "test"
    assert [str(warning.message) for warning in caught] == [
        f"{folder}: folders without text and motions: __MACOSX (ignored)",
        f"{folder}: 4 of 6 queries have not 32 candidates: 2 (1 candidates), 3 (10 candidates), 4 (9 candidates) and 1 more "
        "(ranked as they are)",
        f"{folder}: 3 of 6 queries have fewer than 10 candidates: 2 (1 candidates), 4 (9 candidates), 5 (2 candidates) "
        "(they can be ranked, but submission.csv needs 10)",
        f"{folder}: 2 of 6 queries have gaps in the numbers of motion_<k>.npy: 2 (1 candidates), 4 (9 candidates) "
        "(ranked by the numbers they have)",
    ]


# ---- gt.csv


def test_the_ground_truth_takes_numbers_and_names(tmp_path):
    (tmp_path / "gt.csv").write_text("query_id,candidate\n 01 ,7\n2,motion_31\nq3, 5\n")
    assert read_ground_truth(tmp_path / "gt.csv") == {"1": 7, "2": 31, "q3": 5}


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("", "no column query_id, candidate", "write the header query_id,candidate"),
        ("query_id,answer\n1,2\n", "no column candidate", "write the header query_id,candidate"),
        ("query_id,candidate\n", "no query in it", "one line per query"),
        ("query_id,candidate\n1,2\n2,two\n", "line 3, column candidate: 'two' is no candidate", "k or motion_k"),
        ("query_id,candidate\n1,0\n", "line 2, column candidate: '0'", "from 1"),
        ("query_id,candidate\n1,\n", "line 2, column candidate: empty", "fill it in"),
        ("query_id,candidate\n1,2\n01,2\n", "line 3, column query_id: query 01 is there twice", "keep one"),
    ],
)
def test_faults_in_the_ground_truth_are_named(tmp_path, text, problem, fix):
    (tmp_path / "gt.csv").write_text(text)
    faulty(lambda: read_ground_truth(tmp_path / "gt.csv"), tmp_path / "gt.csv", problem, fix)


# ---- submission.csv


HEADER = "query_id," + ",".join(f"candidate_{rank}" for rank in range(1, 11))
ROW = "1,2,3,4,5,6,7,8,9,10"
QUERIES = tuple(Query(name, ("they bow",), tuple(range(1, 33)), ()) for name in ("1", "2", "q3"))


@pytest.mark.parametrize("candidate_format", ["int", "name"])
def test_what_is_written_is_read_back(tmp_path, candidate_format):
    rows = {"1": tuple(range(32, 0, -1)), "2": np.arange(1, 11), "q3": list(range(5, 15))}
    path = tmp_path / "made/when/needed.csv"
    write_submission(path, rows, candidate_format)
    assert read_submission(path, QUERIES) == {"1": tuple(range(32, 22, -1)), "2": tuple(range(1, 11)), "q3": tuple(range(5, 15))}
    assert read_submission(path) == read_submission(path, QUERIES)
    assert [other.name for other in path.parent.iterdir()] == ["needed.csv"]


def test_the_written_file_is_byte_for_byte_the_form_asked_for(tmp_path):
    write_submission(tmp_path / "a.csv", {"1": [3, 1], "x,y": [2, 4]}, "int", top_k=2)
    assert (tmp_path / "a.csv").read_bytes() == b'query_id,candidate_1,candidate_2\n1,3,1\n"x,y",2,4\n'
    write_submission(tmp_path / "a.csv", {"1": [3, 1, 7]}, "name", top_k=2)
    assert (tmp_path / "a.csv").read_bytes() == b"query_id,candidate_1,candidate_2\n1,motion_3,motion_1\n"


@pytest.mark.parametrize(
    ("rows", "problem", "fix"),
    [
        ({}, "no query to write", "test folder"),
        ({"1": range(1, 11), "2": range(1, 10)}, "query 2 has 9 candidates of 10", "at least 10"),
        ({"1": range(1, 11), "2": [1] * 10}, "query 2 has candidates [1, 1,", "once"),
        ({"1": range(10)}, "query 1 has candidates [0, 1,", "from 1"),
        ({"1": range(1, 11), "01": range(1, 11)}, "queries 1 and 01 are the same", "keep one"),
        ({" 1": range(1, 11)}, "query id ' 1' is empty or has spaces", "rename"),
        ({"": range(1, 11)}, "query id '' is empty or has spaces", "rename"),
    ],
)
def test_rows_that_are_no_submission_leave_the_old_file(tmp_path, rows, problem, fix):
    path = tmp_path / "submission.csv"
    path.write_text("old")
    faulty(lambda: write_submission(path, rows), path, problem, fix)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_candidate_format_is_a_setting_fault(tmp_path):
    with pytest.raises(ConfigError, match="--candidate_format: no format 'letter' \\(use int or name\\)"):
        write_submission(tmp_path / "a.csv", {"1": range(1, 11)}, "letter")
    assert not list(tmp_path.iterdir())


def test_a_write_that_breaks_midway_leaves_the_old_file(tmp_path, monkeypatch):
    def fail(path, text, **_):
        path.write_bytes(text.encode()[:20])
        raise OSError(28, "No space left on device")

    path = tmp_path / "submission.csv"
    path.write_text("old")
    monkeypatch.setattr(Path, "write_text", fail)
    problem = "cannot be written: No space left on device"
    faulty(lambda: write_submission(path, {"1": range(1, 11)}), path, problem, "folder")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_submission_may_come_from_another_system(tmp_path):
    (tmp_path / "a.csv").write_bytes(f'{HEADER}\r\n"2",{ROW}'.encode())
    assert read_submission(tmp_path / "a.csv") == {"2": tuple(range(1, 11))}


def with_cells(**cells):
    """The row of query 1 with some cells replaced, by rank: c4="x"."""
    row = ROW.split(",")
    for rank, text in cells.items():
        row[int(rank[1:]) - 1] = text
    return "1," + ",".join(row)


NAMES_ROW = ",".join(f"motion_{number}" for number in range(1, 11))
BAD_SUBMISSIONS = {
    "nothing": ("", "line 1, column 1: 'query_id' is missing", f"write the header {HEADER}"),
    "no rows": (f"{HEADER}\n", "no row under its header", "one row per query"),
    "index column": (f",{HEADER}\n0,1,{ROW}\n", "line 1, column 1: '' is an index column", "index=False"),
    "named index": (f"Unnamed: 0,{HEADER}\n0,1,{ROW}\n", "line 1, column 1: 'Unnamed: 0' is an index column", "index=False"),
    "other name": (HEADER.replace("candidate_3", "cand_3") + f"\n1,{ROW}\n", "column 4: 'cand_3' where 'candidate_3' belongs", HEADER),
    "header space": (HEADER.replace(",candidate_1,", ", candidate_1,"), "column 2: ' candidate_1' has stray spaces", HEADER),
    "header short": (HEADER.removesuffix(",candidate_10"), "line 1, column 11: 'candidate_10' is missing", HEADER),
    "header long": (f"{HEADER},candidate_11\n", "line 1, column 12: 'candidate_11' is one too many", HEADER),
    "no header": (f"1,{ROW}\n", "line 1, column 1: '1' where 'query_id' belongs", HEADER),
    "semicolons": (HEADER.replace(",", ";"), "line 1, column 1: 'query_id;candidate_1;", HEADER),
    "empty row": (f"{HEADER}\n1,{ROW}\n\n2,{ROW}\n", "line 3, column query_id: empty row", "remove it"),
    "row of commas": (f"{HEADER}\n{',' * 10}\n", "line 2, column query_id: empty row", "remove it"),
    "no id": (f"{HEADER}\n,{ROW}\n", "line 2, column query_id: empty", "fill it in"),
    "id space": (f"{HEADER}\n1 ,{ROW}\n", "line 2, column query_id: '1 ' has stray spaces", "remove them"),
    "cell space": (f"{HEADER}\n{with_cells(c4=' 4')}\n", "line 2, column candidate_4: ' 4' has stray spaces", "remove them"),
    "empty cell": (f"{HEADER}\n{with_cells(c4='')}\n", "line 2, column candidate_4: empty", "fill it in"),
    "row short": (f"{HEADER}\n1,2,3\n", "line 2, column candidate_3: 2 candidates in the row", "exactly 10"),
    "row long": (f"{HEADER}\n1,{ROW},11\n", "line 2, column 12: 11 candidates in the row", "exactly 10"),
    "decimal": (f"{HEADER}\n{with_cells(c4='4.0')}\n", "line 2, column candidate_4: '4.0' is no candidate", "k or motion_k"),
    "zero": (f"{HEADER}\n{with_cells(c1='0')}\n", "line 2, column candidate_1: '0' is no candidate", "from 1"),
    "file name": (f"{HEADER}\n{with_cells(c4='motion_4.npy')}\n", "column candidate_4: 'motion_4.npy' is no candidate", "motion_k"),
    "mixed row": (f"{HEADER}\n{with_cells(c4='motion_4')}\n", "column candidate_4: 'motion_4' differs in form", "all as motion_k"),
    "mixed rows": (f"{HEADER}\n1,{NAMES_ROW}\n2,{ROW}\n", "line 3, column candidate_1: '1' differs in form", "all as k"),
    "twice": (f"{HEADER}\n{with_cells(c4='2')}\n", "line 2, column candidate_4: 2 is also in candidate_2", "once"),
    "no such motion": (f"{HEADER}\n{with_cells(c4='33')}\n", "column candidate_4: query 1 has no motion_33.npy", "the query has"),
    "unknown query": (f"{HEADER}\n7,{ROW}\n", "line 2, column query_id: no query 7 in the test folder", "query folders are named"),
    "query in another form": (f"{HEADER}\n01,{ROW}\n", "line 2, column query_id: no query 01 in the test folder, only 1", "are named"),
    "query twice": (f"{HEADER}\n1,{ROW}\n2,{ROW}\n01,{ROW}\n", "line 4, column query_id: query 01 is also on line 2", "one row per query"),
    "missing query": (f"{HEADER}\n2,{ROW}\n", "no row for 2 of 3 queries: 1, q3", "one row per query"),
    "open quote": (f'{HEADER}\n"1,{ROW}\n', "line 2: not CSV", "quotes"),
    "byte order mark": (f"\ufeff{HEADER}\n1,{ROW}\n", "line 1, column 1: a byte order mark", "without BOM"),
}


@pytest.mark.parametrize("name", BAD_SUBMISSIONS)
def test_faults_of_a_submission_name_row_and_column(tmp_path, name):
    text, problem, fix = BAD_SUBMISSIONS[name]
    path = tmp_path / "submission.csv"
    path.write_bytes(text.encode())
    faulty(lambda: read_submission(path, QUERIES), path, problem, fix)


def test_a_submission_that_is_not_utf8_is_a_fault(tmp_path):
    path = tmp_path / "submission.csv"
    path.write_bytes(f"{HEADER}\n1,{ROW}\n".encode("utf-16"))
    faulty(lambda: read_submission(path), path, "line 1, column 1: not UTF-8 at byte 0", "save it as UTF-8")
    path.write_bytes(f"{HEADER}\r\n1,{ROW}\r\n2,".encode() + b"7,\xe9")
    byte = len(f"{HEADER}\r\n1,{ROW}\r\n2,7,")
    faulty(lambda: read_submission(path), path, f"line 3, column 3: not UTF-8 at byte {byte}", "save it as UTF-8")


# ---- the module itself


def test_reading_data_loads_neither_torch_nor_pandas():
    code = "import sys, motret.formats.submission; print(sorted({'torch', 'pandas', 'sklearn'} & set(sys.modules)))"
    solution = Path(submission.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=solution, capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
