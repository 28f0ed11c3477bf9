"""submissions/log.csv: one row per submission, with its local score and the leaderboard's."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from motret.errors import ConfigError, DataError
from motret.formats.text_files import read_text
from motret.utils import files

COLUMNS = (
    "time",
    "file",
    "local_score",
    "error",
    "members",
    "hash",
    "git",
    "public_score",
)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of the log, none without a log. DataError where its columns are not ours."""
    if not path.is_file():
        return []
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows = list(reader)
    incomplete = any(None in row or None in row.values() for row in rows)
    if tuple(reader.fieldnames or ()) != COLUMNS or incomplete:
        problem = f"its columns are not {','.join(COLUMNS)}"
        raise DataError(path, problem, "correct it, or move it away: a new log is begun")
    return rows


def write_log(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes the log, whole or not at all."""
    files.write_csv(path, rows, COLUMNS)


def append_submission(path: Path, row: Sequence[str]) -> None:
    """Adds a row to the log; its values are in the order of `COLUMNS`."""
    write_log(path, [*read_log(path), dict(zip(COLUMNS, row, strict=True))])


def move_latest(path: Path, file_name: str) -> None:
    """Moves the row of a submission to the end of the log, which makes it the latest."""
    rows = read_log(path)
    latest = [row for row in rows if row["file"] == file_name]
    write_log(path, [row for row in rows if row["file"] != file_name] + latest)


def latest_submission(folder: Path) -> Path | None:
    """The submission in a folder that its log has last; None where the log is empty."""
    rows = read_log(folder / "log.csv")
    return folder / rows[-1]["file"] if rows else None


def find_submission(path: Path, submission_hash: str) -> Path | None:
    """The submission with this hash; None where the log has none, or its file is gone."""
    names = [row["file"] for row in read_log(path) if row["hash"] == submission_hash]
    candidates = (path.parent / name for name in reversed(names))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def record_public_score(path: Path, submission: Path, public_score: float) -> str:
    """Writes the leaderboard's score of a submission into the log; returns a line that says so.

    submission: a file of the log by name, or a copy of one. DataError where the log has none.
    """
    if not 0 <= public_score <= 1:
        problem = f"is {public_score:g}"
        raise ConfigError("public_score", problem, "give the leaderboard's score, from 0 to 1")
    rows = read_log(path)
    names = (submission.name, _original_of(submission, path.parent, rows))
    row = next((row for row in reversed(rows) if row["file"] in names), None)
    if row is None:
        problem = f"has no row of {submission.name}"
        raise DataError(path, problem, "name a file of the log, or a copy of one")
    row["public_score"] = f"{public_score:g}"
    write_log(path, rows)
    has_local = bool(row["local_score"])
    local = f"local score {row['local_score']} +- {row['error']}" if has_local else "no local score"
    return f"{row['file']}: public score {public_score:g}, {local}"


def _original_of(copy: Path, folder: Path, rows: Sequence[dict[str, str]]) -> str | None:
    """Name of the latest submission of the log with the same content; None where there is none."""
    if not copy.is_file():
        return None
    content = copy.read_bytes()
    originals = (folder / row["file"] for row in reversed(rows))
    return next(
        (path.name for path in originals if path.is_file() and path.read_bytes() == content), None
    )
