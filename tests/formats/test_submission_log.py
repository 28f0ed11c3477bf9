"""The log of submissions keeps its rows, and finds submissions by name, content and hash."""

from pathlib import Path

import pytest

from motret.errors import ConfigError, DataError
from motret.formats import submission_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two submissions, whose files are there."""
    path = tmp_path / "log.csv"
    for name, submission_hash in (("a.csv", "h1"), ("b.csv", "h2")):
        (tmp_path / name).write_text(name)
        row = ("now", name, "0.5", "0.01", "one two", submission_hash, "git", "")
        submission_log.append_submission(path, row)
    return path


def test_rows_are_read_back_in_their_order(log: Path, tmp_path: Path) -> None:
    rows = submission_log.read_log(log)
    assert [row["file"] for row in rows] == ["a.csv", "b.csv"]
    assert tuple(rows[0]) == submission_log.COLUMNS
    assert submission_log.read_log(tmp_path / "none.csv") == []


def test_the_latest_submission_is_the_last_row(log: Path, tmp_path: Path) -> None:
    assert submission_log.latest_submission(tmp_path) == tmp_path / "b.csv"
    submission_log.move_latest(log, "a.csv")
    assert submission_log.latest_submission(tmp_path) == tmp_path / "a.csv"


def test_a_submission_is_found_by_its_hash_while_its_file_is_there(
    log: Path, tmp_path: Path
) -> None:
    assert submission_log.find_submission(log, "h1") == tmp_path / "a.csv"
    (tmp_path / "a.csv").unlink()
    assert submission_log.find_submission(log, "h1") is None


def test_a_public_score_is_recorded_for_a_name_or_a_copy(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_text("a.csv")
    message = submission_log.record_public_score(log, copy, 0.75)
    assert message == "a.csv: public score 0.75, local score 0.5 +- 0.01"
    submission_log.record_public_score(log, Path("b.csv"), 0.5)
    assert [row["public_score"] for row in submission_log.read_log(log)] == ["0.75", "0.5"]


def test_a_score_or_a_file_that_cannot_be_recorded_is_an_error(log: Path) -> None:
    with pytest.raises(ConfigError, match="public_score: is 75"):
        submission_log.record_public_score(log, Path("a.csv"), 75)
    with pytest.raises(DataError, match=r"log\.csv: has no row of c\.csv"):
        submission_log.record_public_score(log, Path("c.csv"), 0.5)


def test_a_log_that_is_not_utf8_is_one_line(log: Path) -> None:
    log.write_bytes(log.read_bytes() + b"\xff\n")
    with pytest.raises(DataError, match=r"log\.csv: not UTF-8 at byte \d+ \(save it as UTF-8\)"):
        submission_log.read_log(log)


@pytest.mark.parametrize(
    "text", ["", "time,file\n", ",".join(submission_log.COLUMNS) + "\nnow,a.csv\n"]
)
def test_a_log_of_other_columns_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=r"log\.csv: its columns are not time,file"):
        submission_log.read_log(tmp_path / "log.csv")
