"""The training set is read from a data folder, and whatever is wrong with it is named."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from motret.formats.challenge import SkippedFile, read_training

MOTION = np.zeros((20, 384), np.float32)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    """A warning that a test does not expect fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write_training(root, ids=("00001", "00002", "00003"), listed=None):
    (root / "motions").mkdir(parents=True)
    (root / "texts").mkdir()
    for name in ids:
        np.save(root / "motions" / f"{name}.npy", MOTION)
        (root / "texts" / f"{name}.txt").write_text(f"two people, {name}\nthey move\n")
    if listed is not None:
        (root / "train.txt").write_text("".join(f"{name}\n" for name in listed))
    return root


def test_the_training_set_keeps_the_order_of_train_txt(tmp_path):
    root = write_training(tmp_path / "data", listed=["3", "00001\r"])
    training = read_training(root)
    assert training.root == root
    assert training.ids == ("00003", "00001")
    assert training.paths == (root / "motions/00003.npy", root / "motions/00001.npy")
    assert training.captions[1] == ("two people, 00001", "they move")
    assert training.groups is None
    assert training.skipped == ()


def test_without_train_txt_every_id_with_motion_and_text_is_taken(expect_error, tmp_path):
    root = write_training(tmp_path / "data", ids=["10", "9", "b", "a"])
    np.save(root / "motions/7.npy", MOTION)
    (root / "texts/8.txt").write_text("nobody moves")
    (root / "texts/gar_train.json").write_text("[]")
    (root / "motions/._9.npy").write_bytes(b"a Mac's shadow")
    training = read_training(root)
    assert training.ids == ("09", "10", "a", "b")
    assert training.skipped == (
        SkippedFile(str(root / "motions"), "1 without text: 07"),
        SkippedFile(str(root / "texts"), "1 without motion: 08"),
    )
    expect_error(
        lambda: read_training(root, strict=True), root / "motions", "without text: 07", "train.txt"
    )


def test_the_width_of_ids_is_the_widest_file_name_or_the_one_given(tmp_path):
    root = write_training(tmp_path / "data", ids=["1", "0002"], listed=["000000001", "2"])
    assert read_training(root).ids == ("0001", "0002")
    assert read_training(root, id_width=6).ids == ("000001", "000002")


def test_restricting_keeps_the_order_and_every_column_in_step(expect_error, tmp_path):
    root = write_training(tmp_path / "data", listed=["3", "2", "1"])
    (root / "groups.csv").write_text("id,group\n1,a\n2,b\n3,c\n")
    training = read_training(root).subset(["00001", "00003"])
    assert training.ids == ("00003", "00001")
    assert [path.stem for path in training.paths] == ["00003", "00001"]
    assert [captions[0] for captions in training.captions] == [
        "two people, 00003",
        "two people, 00001",
    ]
    assert training.groups == {"00003": "c", "00001": "a"}
    expect_error(lambda: training.subset(["00002"]), root, "no training motion 00002", "folds")


@pytest.mark.parametrize("gone", ["", "motions", "texts"])
def test_a_missing_folder_says_where_data_comes_from(expect_error, tmp_path, gone):
    root = write_training(tmp_path / "data")
    (root / gone).rename(tmp_path / "elsewhere")
    expect_error(
        lambda: read_training(root),
        root / gone,
        "no such folder",
        "--data_dir",
        "`python solution/sample.py`",
    )


@pytest.mark.parametrize("text", ["", "\n \r\n"])
def test_an_empty_train_txt_is_fatal(expect_error, tmp_path, text):
    root = write_training(tmp_path / "data")
    (root / "train.txt").write_text(text)
    expect_error(lambda: read_training(root), root / "train.txt", "no id in it", "one per line")


@pytest.mark.parametrize("name", ["../00001", "a/b", "a\\b", "..", "/etc/passwd"])
def test_an_id_that_is_a_path_is_fatal(expect_error, tmp_path, name):
    root = write_training(tmp_path / "data", listed=["00001", name])
    expect_error(
        lambda: read_training(root), root / "train.txt", f"id {name!r} is a path", "bare ids"
    )


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
    training = read_training(root, strict=True)
    assert training.ids == ("00002", "00001") and training.skipped == ()


def test_a_file_that_is_listed_twice_is_named(tmp_path):
    root = write_training(
        tmp_path / "data", ids=["00001", "00002"], listed=["00001.npy", "00002.npy", "00001.npy"]
    )
    assert read_training(root).skipped == (
        SkippedFile(str(root / "train.txt"), "id 00001 is listed more than once"),
    )


def test_problems_of_training_files_are_skipped_and_listed(tmp_path):
    root = write_training(
        tmp_path / "data", ids=["1", "2", "3", "4"], listed=["1", "2", "3", "4", "5", "01"]
    )
    (root / "motions/2.npy").unlink()
    (root / "texts/3.txt").unlink()
    (root / "texts/4.txt").write_bytes(b"gr\xfcn")
    training = read_training(root)
    assert training.ids == ("1",)
    assert training.skipped == (
        SkippedFile(str(root / "train.txt"), "id 2 has no motion"),
        SkippedFile(str(root / "train.txt"), "id 3 has no text"),
        SkippedFile(str(root / "train.txt"), "id 5 has no motion and no text"),
        SkippedFile(str(root / "train.txt"), "id 01 is listed more than once"),
        SkippedFile(str(root / "texts/4.txt"), "not UTF-8 at byte 2"),
    )


def remove_motion(root):
    (root / "motions/00002.npy").unlink()
    return root / "train.txt", "id 2 has no motion"


def remove_text(root):
    (root / "texts/00002.txt").unlink()
    return root / "train.txt", "id 2 has no text"


def empty_text(root):
    (root / "texts/00002.txt").write_text("\n")
    return root / "texts/00002.txt", "no caption"


def list_twice(root):
    (root / "train.txt").write_text("1\n2\n0001\n")
    return root / "train.txt", "id 0001 is listed more than once"


@pytest.mark.parametrize("spoil", [remove_motion, remove_text, empty_text, list_twice])
def test_strict_makes_each_skip_fatal(expect_error, tmp_path, spoil):
    root = write_training(tmp_path / "data", listed=["1", "2"])
    file, problem = spoil(root)
    assert len(read_training(root).skipped) == 1
    expect_error(lambda: read_training(root, strict=True), file, problem)


@pytest.mark.parametrize("strict", [False, True])
def test_an_empty_dataset_shows_ids_of_every_source(expect_error, tmp_path, strict):
    root = write_training(tmp_path / "data", listed=["id_1", "id_2"])
    for path in (root / "texts").iterdir():
        path.rename(path.with_stem(f"M{path.stem}"))
    examples = (
        "empty dataset",
        "motions/ ids e.g. [00001, 00002, 00003]",
        "texts/ ids e.g. [M00001, M00002, M00003]",
    )
    expect_error(
        lambda: read_training(root, strict=strict),
        root,
        *examples,
        "train.txt ids e.g. [id_1, id_2]",
        "--id_width",
    )
    (root / "train.txt").unlink()
    assert (
        "train.txt ids"
        not in expect_error(
            lambda: read_training(root, strict=strict), root, *examples, "--id_width"
        ).problem
    )


def test_a_dataset_of_broken_texts_is_empty_and_names_the_first(expect_error, tmp_path):
    root = write_training(tmp_path / "data", ids=["1"])
    (root / "texts/1.txt").write_text("")
    expect_error(
        lambda: read_training(root),
        root,
        "empty dataset",
        f"first problem: {root / 'texts/1.txt'}: no caption",
    )


@pytest.mark.parametrize(("folder", "suffix"), [("motions", ".npy"), ("texts", ".txt")])
@pytest.mark.parametrize("strict", [False, True])
def test_two_files_of_one_id_are_fatal(expect_error, tmp_path, folder, suffix, strict):
    root = write_training(tmp_path / "data")
    (root / folder / f"1{suffix}").write_bytes((root / folder / f"00001{suffix}").read_bytes())
    expect_error(
        lambda: read_training(root, strict=strict),
        root / folder / f"1{suffix}",
        f"same id 00001 as 00001{suffix}",
        "remove one of the two",
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
    assert read_training(root).skipped == (
        SkippedFile(str(root / "motions/2.npy"), "cannot be read: No such file or directory"),
        SkippedFile(str(root / "texts"), "1 without motion: 2"),
    )


def test_groups_are_matched_by_canonical_id(tmp_path):
    root = write_training(tmp_path / "data")
    lines = ("group, id ,note", "g1,1,x", "", "g1,0002,y", "g2,00003", "g9,77,z", "g1,1,again", "")
    (root / "groups.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read_training(root).groups == {"00001": "g1", "00002": "g1", "00003": "g2"}


def test_an_id_without_group_gets_one_of_its_own_with_a_warning(tmp_path):
    root = write_training(tmp_path / "data")
    (root / "groups.csv").write_text("id,group\n1,g1\n")
    warning = "no group for 2 of 3 training ids: 00002, 00003 .each gets a group of its own"
    with pytest.warns(UserWarning, match=warning):
        groups = read_training(root).groups
    assert list(groups) == ["00001", "00002", "00003"]
    assert len(set(groups.values())) == 3


def test_sources_are_read_where_groups_csv_has_them(tmp_path):
    root = write_training(tmp_path / "data")
    (root / "groups.csv").write_text("id,group\n1,a\n2,a\n3,b\n")
    assert read_training(root).sources is None
    (root / "groups.csv").write_text("id,group,source\n1,a,cmu\n2,a,\n00003,b,kit\n")
    training = read_training(root)
    assert training.sources == {"00001": "cmu", "00002": "unknown", "00003": "kit"}
    assert training.subset(["00003"]).sources == {"00003": "kit"}


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
def test_problems_of_groups_csv_are_fatal(expect_error, tmp_path, text, problem, fix):
    root = write_training(tmp_path / "data")
    (root / "groups.csv").write_text(text)
    expect_error(lambda: read_training(root), root / "groups.csv", problem, fix)
