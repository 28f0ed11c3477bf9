"""Queries are read from a test folder, and whatever is wrong with them is named."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from motret.formats.queries import read_queries

MOTION = np.zeros((15, 192), np.float32)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    """A warning that a test does not expect fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write_query(folder, numbers=range(1, 33), text="they bow", name="text.txt"):
    folder.mkdir(parents=True)
    if text is not None:
        (folder / name).write_text(text)
    for number in numbers:
        np.save(folder / f"motion_{number}.npy", MOTION)
    return folder


def test_queries_come_by_number_and_their_candidates_too(tmp_path):
    for name in ("10", "9", "02", "extra"):
        write_query(tmp_path / "test" / name, text=f"query {name}\nagain")
    (tmp_path / "test/gt.csv").write_text("query_id,candidate\n")
    (tmp_path / "test/.ipynb_checkpoints").mkdir()
    (tmp_path / "test/9/._motion_1.npy").write_bytes(b"a Mac's shadow")
    with pytest.warns(UserWarning, match="named folders among numbered queries: extra"):
        queries = read_queries(tmp_path / "test")
    assert [query.id for query in queries] == ["02", "9", "10", "extra"]
    assert queries[0].captions == ("query 02", "again")
    assert queries[1].candidates == tuple(range(1, 33))
    assert queries[1].paths[9] == tmp_path / "test/9/motion_10.npy"


def test_query_txt_is_read_where_text_txt_is_not(expect_error, tmp_path):
    folder = write_query(tmp_path / "test/1", name="query.txt")
    assert read_queries(tmp_path / "test")[0].captions == ("they bow",)
    (folder / "text.txt").write_text("they bow\r\n")
    assert read_queries(tmp_path / "test")[0].captions == ("they bow",)
    (folder / "text.txt").write_text("they sit")
    expect_error(
        lambda: read_queries(tmp_path / "test"),
        folder,
        "text.txt and query.txt differ",
        "keep the right one",
    )


def test_zero_padded_candidates_are_numbers(expect_error, tmp_path):
    folder = write_query(tmp_path / "test/1", numbers=[f"{number:02d}" for number in range(1, 33)])
    assert read_queries(tmp_path / "test")[0].candidates == tuple(range(1, 33))
    (folder / "motion_7.npy").write_bytes(b"")
    expect_error(
        lambda: read_queries(tmp_path / "test"),
        folder / "motion_7.npy",
        "same candidate 7 as motion_07.npy",
        "remove one",
    )


@pytest.mark.parametrize(
    "name",
    [
        "motion_x.npy",
        "motion_.npy",
        "motion_0.npy",
        "motion_1 (1).npy",
        "motion_motion_2.npy",
        "motion_-1.npy",
    ],
)
def test_a_candidate_without_number_is_named(expect_error, tmp_path, name):
    folder = write_query(tmp_path / "test/1")
    (folder / name).write_bytes(b"")
    expect_error(
        lambda: read_queries(tmp_path / "test"),
        folder / name,
        "not a candidate's name",
        "motion_<k>.npy",
    )


@pytest.mark.parametrize(
    ("broken", "numbers", "text", "problem", "fix"),
    [
        ("1", range(1, 33), None, "no text.txt", "needs its text"),
        ("1", [], "they bow", "no motion_<k>.npy", "needs its candidates"),
        ("1/text.txt", range(1, 33), " ", "no caption", "one caption per line"),
    ],
)
def test_a_broken_query_is_fatal(expect_error, tmp_path, broken, numbers, text, problem, fix):
    write_query(tmp_path / "test/1", numbers, text)
    write_query(tmp_path / "test/2")
    expect_error(lambda: read_queries(tmp_path / "test"), tmp_path / "test" / broken, problem, fix)


def test_a_query_text_that_is_not_utf8_is_fatal(expect_error, tmp_path):
    folder = write_query(tmp_path / "test/1")
    (folder / "text.txt").write_bytes(b"\xff")
    expect_error(
        lambda: read_queries(tmp_path / "test"),
        folder / "text.txt",
        "not UTF-8 at byte 0",
        "save it as UTF-8",
    )


def test_a_test_folder_without_queries_is_an_error(expect_error, tmp_path):
    expect_error(
        lambda: read_queries(tmp_path / "test"), tmp_path / "test", "no such folder", "--data_dir"
    )
    (tmp_path / "test/__MACOSX").mkdir(parents=True)
    expect_error(
        lambda: read_queries(tmp_path / "test"),
        tmp_path / "test",
        "no query folder",
        "motion_<k>.npy",
    )


def test_two_folders_of_one_query_are_an_error(expect_error, tmp_path):
    write_query(tmp_path / "test/1")
    write_query(tmp_path / "test/01")
    assert (
        "the same query id as"
        in expect_error(
            lambda: read_queries(tmp_path / "test"), tmp_path / "test/1", "remove one"
        ).problem
    )


def test_each_kind_of_unusual_pool_is_one_warning(tmp_path):
    whole = tuple(range(1, 33))
    pools = {
        "1": whole,
        "2": (3,),
        "3": range(1, 11),
        "4": (*range(1, 9), 40),
        "5": (1, 2),
        "6": whole,
    }
    for name, numbers in pools.items():
        write_query(tmp_path / "test" / name, numbers)
    (tmp_path / "test/__MACOSX").mkdir()
    with pytest.warns(UserWarning) as caught:
        queries = read_queries(tmp_path / "test")
    assert {query.id: query.candidates for query in queries} == {
        name: tuple(numbers) for name, numbers in pools.items()
    }
    folder = tmp_path / "test"
    assert [str(warning.message) for warning in caught] == [
        f"{folder}: folders without text and motions: __MACOSX (ignored)",
        f"{folder}: 4 of 6 queries have other than 32 candidates: 2 (1 candidates), "
        "3 (10 candidates), 4 (9 candidates) and 1 more (ranked as they are)",
        f"{folder}: 3 of 6 queries have fewer than 10 candidates: 2 (1 candidates), "
        "4 (9 candidates), 5 (2 candidates) (they can be ranked, but submission.csv needs 10)",
        f"{folder}: 2 of 6 queries have gaps in their candidates: 2 (no motion_1.npy), "
        "4 (no motion_9.npy) (ranked by the numbers they have)",
    ]
