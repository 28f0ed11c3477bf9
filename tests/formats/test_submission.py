"""Submissions and ground truths are read in exactly the competition's form."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from motret.errors import ConfigError, WriteError
from motret.formats import submission
from motret.formats.queries import Query
from motret.formats.submission import read_ground_truth, read_submission, write_submission


def test_the_ground_truth_takes_numbers_and_names(tmp_path):
    (tmp_path / "gt.csv").write_text("query_id,candidate\n 01 ,7\n2,motion_31\nq3, 5\n")
    assert read_ground_truth(tmp_path / "gt.csv") == {"1": 7, "2": 31, "q3": 5}


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("", "no column query_id, candidate", "write the header query_id,candidate"),
        ("query_id,answer\n1,2\n", "no column candidate", "write the header query_id,candidate"),
        ("query_id,candidate\n", "no query in it", "one line per query"),
        (
            "query_id,candidate\n1,2\n2,two\n",
            "line 3, column candidate: 'two' is no candidate",
            "k or motion_k",
        ),
        ("query_id,candidate\n1,0\n", "line 2, column candidate: '0'", "from 1"),
        ("query_id,candidate\n1,\n", "line 2, column candidate: empty", "fill it in"),
        (
            "query_id,candidate\n1,2\n01,2\n",
            "line 3, column query_id: query 01 is there twice",
            "keep one",
        ),
    ],
)
def test_problems_of_the_ground_truth_are_named(expect_error, tmp_path, text, problem, fix):
    (tmp_path / "gt.csv").write_text(text)
    expect_error(lambda: read_ground_truth(tmp_path / "gt.csv"), tmp_path / "gt.csv", problem, fix)


HEADER = "query_id," + ",".join(f"candidate_{rank}" for rank in range(1, 11))
ROW = "1,2,3,4,5,6,7,8,9,10"
QUERIES = tuple(Query(name, ("they bow",), tuple(range(1, 33)), ()) for name in ("1", "2", "q3"))


@pytest.mark.parametrize("candidate_format", ["int", "name"])
def test_what_is_written_is_read_back(tmp_path, candidate_format):
    rows = {"1": tuple(range(32, 0, -1)), "2": np.arange(1, 11), "q3": list(range(5, 15))}
    path = tmp_path / "made/when/needed.csv"
    write_submission(path, rows, candidate_format)
    assert read_submission(path, QUERIES) == {
        "1": tuple(range(32, 22, -1)),
        "2": tuple(range(1, 11)),
        "q3": tuple(range(5, 15)),
    }
    assert read_submission(path) == read_submission(path, QUERIES)
    assert [file.name for file in path.parent.iterdir()] == ["needed.csv"]


def test_the_written_file_is_byte_for_byte_the_form_asked_for(tmp_path):
    write_submission(tmp_path / "a.csv", {"1": [3, 1], "x,y": [2, 4]}, "int", top_k=2)
    assert (
        tmp_path / "a.csv"
    ).read_bytes() == b'query_id,candidate_1,candidate_2\n1,3,1\n"x,y",2,4\n'
    write_submission(tmp_path / "a.csv", {"1": [3, 1, 7]}, "name", top_k=2)
    assert (
        tmp_path / "a.csv"
    ).read_bytes() == b"query_id,candidate_1,candidate_2\n1,motion_3,motion_1\n"


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
def test_rankings_that_are_no_submission_leave_the_old_file(
    expect_error, tmp_path, rows, problem, fix
):
    path = tmp_path / "submission.csv"
    path.write_text("old")
    expect_error(lambda: write_submission(path, rows), path, problem, fix)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_candidate_format_is_a_config_error(tmp_path):
    with pytest.raises(
        ConfigError, match="--candidate_format: no format 'letter' \\(use int or name\\)"
    ):
        write_submission(tmp_path / "a.csv", {"1": range(1, 11)}, "letter")
    assert not list(tmp_path.iterdir())


def test_a_write_that_breaks_midway_leaves_the_old_file(expect_error, tmp_path, monkeypatch):
    def fail(path, text, **_):
        path.write_bytes(text.encode()[:20])
        raise OSError(28, "No space left on device")

    path = tmp_path / "submission.csv"
    path.write_text("old")
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(WriteError, match=r"submission\.csv: no space is left on its disk"):
        write_submission(path, {"1": range(1, 11)})
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
    "index column": (
        f",{HEADER}\n0,1,{ROW}\n",
        "line 1, column 1: '' is an index column",
        "index=False",
    ),
    "named index": (
        f"Unnamed: 0,{HEADER}\n0,1,{ROW}\n",
        "line 1, column 1: 'Unnamed: 0' is an index column",
        "index=False",
    ),
    "other name": (
        HEADER.replace("candidate_3", "cand_3") + f"\n1,{ROW}\n",
        "column 4: 'cand_3' where 'candidate_3' belongs",
        HEADER,
    ),
    "header space": (
        HEADER.replace(",candidate_1,", ", candidate_1,"),
        "column 2: ' candidate_1' has stray spaces",
        HEADER,
    ),
    "header short": (
        HEADER.removesuffix(",candidate_10"),
        "line 1, column 11: 'candidate_10' is missing",
        HEADER,
    ),
    "header long": (
        f"{HEADER},candidate_11\n",
        "line 1, column 12: 'candidate_11' is one too many",
        HEADER,
    ),
    "no header": (f"1,{ROW}\n", "line 1, column 1: '1' where 'query_id' belongs", HEADER),
    "semicolons": (HEADER.replace(",", ";"), "line 1, column 1: 'query_id;candidate_1;", HEADER),
    "empty row": (
        f"{HEADER}\n1,{ROW}\n\n2,{ROW}\n",
        "line 3, column query_id: empty row",
        "remove it",
    ),
    "row of commas": (f"{HEADER}\n{',' * 10}\n", "line 2, column query_id: empty row", "remove it"),
    "no id": (f"{HEADER}\n,{ROW}\n", "line 2, column query_id: empty", "fill it in"),
    "id space": (
        f"{HEADER}\n1 ,{ROW}\n",
        "line 2, column query_id: '1 ' has stray spaces",
        "remove them",
    ),
    "cell space": (
        f"{HEADER}\n{with_cells(c4=' 4')}\n",
        "line 2, column candidate_4: ' 4' has stray spaces",
        "remove them",
    ),
    "empty cell": (
        f"{HEADER}\n{with_cells(c4='')}\n",
        "line 2, column candidate_4: empty",
        "fill it in",
    ),
    "row short": (
        f"{HEADER}\n1,2,3\n",
        "line 2, column candidate_3: 2 candidates in the row",
        "exactly 10",
    ),
    "row long": (
        f"{HEADER}\n1,{ROW},11\n",
        "line 2, column 12: 11 candidates in the row",
        "exactly 10",
    ),
    "decimal": (
        f"{HEADER}\n{with_cells(c4='4.0')}\n",
        "line 2, column candidate_4: '4.0' is no candidate",
        "k or motion_k",
    ),
    "zero": (
        f"{HEADER}\n{with_cells(c1='0')}\n",
        "line 2, column candidate_1: '0' is no candidate",
        "from 1",
    ),
    "file name": (
        f"{HEADER}\n{with_cells(c4='motion_4.npy')}\n",
        "column candidate_4: 'motion_4.npy' is no candidate",
        "motion_k",
    ),
    "mixed row": (
        f"{HEADER}\n{with_cells(c4='motion_4')}\n",
        "column candidate_4: 'motion_4' differs in form",
        "all as motion_k",
    ),
    "mixed rows": (
        f"{HEADER}\n1,{NAMES_ROW}\n2,{ROW}\n",
        "line 3, column candidate_1: '1' differs in form",
        "all as k",
    ),
    "twice": (
        f"{HEADER}\n{with_cells(c4='2')}\n",
        "line 2, column candidate_4: 2 is also in candidate_2",
        "once",
    ),
    "no such motion": (
        f"{HEADER}\n{with_cells(c4='33')}\n",
        "column candidate_4: query 1 has no motion_33.npy",
        "the query has",
    ),
    "unknown query": (
        f"{HEADER}\n7,{ROW}\n",
        "line 2, column query_id: no query 7 in the test folder",
        "query folders are named",
    ),
    "query in another form": (
        f"{HEADER}\n01,{ROW}\n",
        "line 2, column query_id: no query 01 in the test folder, only 1",
        "are named",
    ),
    "query twice": (
        f"{HEADER}\n1,{ROW}\n2,{ROW}\n01,{ROW}\n",
        "line 4, column query_id: query 01 is also on line 2",
        "one row per query",
    ),
    "missing query": (
        f"{HEADER}\n2,{ROW}\n",
        "no row for 2 of 3 queries: 1, q3",
        "one row per query",
    ),
    "open quote": (f'{HEADER}\n"1,{ROW}\n', "line 2: not CSV", "quotes"),
    "byte order mark": (
        f"\ufeff{HEADER}\n1,{ROW}\n",
        "line 1, column 1: a byte order mark",
        "without BOM",
    ),
}


@pytest.mark.parametrize("name", BAD_SUBMISSIONS)
def test_problems_of_a_submission_name_line_and_column(expect_error, tmp_path, name):
    text, problem, fix = BAD_SUBMISSIONS[name]
    path = tmp_path / "submission.csv"
    path.write_bytes(text.encode())
    expect_error(lambda: read_submission(path, QUERIES), path, problem, fix)


def test_a_submission_that_is_not_utf8_is_an_error(expect_error, tmp_path):
    path = tmp_path / "submission.csv"
    path.write_bytes(f"{HEADER}\n1,{ROW}\n".encode("utf-16"))
    expect_error(
        lambda: read_submission(path),
        path,
        "line 1, column 1: not UTF-8 at byte 0",
        "save it as UTF-8",
    )
    path.write_bytes(f"{HEADER}\r\n1,{ROW}\r\n2,".encode() + b"7,\xe9")
    byte = len(f"{HEADER}\r\n1,{ROW}\r\n2,7,")
    expect_error(
        lambda: read_submission(path),
        path,
        f"line 3, column 3: not UTF-8 at byte {byte}",
        "save it as UTF-8",
    )


def test_reading_data_loads_neither_torch_nor_pandas():
    loaded = "sorted({'torch', 'pandas', 'sklearn'} & set(sys.modules))"
    code = f"import sys, motret.formats.submission; print({loaded})"
    solution = Path(submission.__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=solution, capture_output=True, text=True, check=True
    )
    assert out.stdout == "[]\n"


@pytest.mark.parametrize("read", [read_ground_truth, read_submission])
def test_a_missing_file_is_named(expect_error, tmp_path, read):
    path, problem = tmp_path / "gone", "cannot be read: No such file"
    expect_error(lambda: read(path), path, problem, "check that it is there")
