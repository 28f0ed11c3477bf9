"""submissions/log.csv: one row per submission, with its local score and the leaderboard's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motret.errors import ConfigError, DataError
from motret.formats.text_files import csv_rows
from motret.utils import files, reading

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
    if not reading.is_file(path):
        return []
    fix = "correct it, or move it away: a new log is begun"
    rows = csv_rows(path, reading.read_text(path))
    header = next(rows, (1, []))[1]
    records = [cells for _, cells in rows if cells]
    if tuple(header) != COLUMNS or any(len(cells) != len(COLUMNS) for cells in records):
        raise DataError(path, f"its columns are not {','.join(COLUMNS)}", fix)
    log = [dict(zip(COLUMNS, cells, strict=True)) for cells in records]
    for row in log:
        if Path(row["file"]).name != row["file"] or not row["file"]:
            raise DataError(path, f"{row['file']!r} is no name of a file", fix)
    return log


def write_log(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes the log, whole or not at all."""
    files.write_csv(path, rows, COLUMNS)


def read_record(submission: Path) -> dict[str, Any] | None:
    """What the JSON file beside a submission says of it; None where there is none.

    DataError where it has another form than ensemble.py writes.
    """
    path, fix = submission.with_suffix(".json"), "move it away, or run ensemble.py again"
    if not reading.is_file(path):
        return None
    record = reading.read_json_object(path, fix)
    with reading.boundary(path, "is no record of a submission", fix):
        for member in record.get("members", ()):
            _check_record(isinstance(member["run"], str), "run")
            _check_record(isinstance(member.get("weight", 0), int | float), "weight")
            _check_score(member.get("local_score"), "mean", "error")
        _check_score(record.get("local_score"), "mean", "error", "motions")
        _check_score(record.get("true_score"), "mean", "error")
        for name in ("data", "folds"):
            _check_record(isinstance(record.get(name, ""), str), name)
        band = record.get("leaderboard_band") or (0, 0)
        _check_record(len(band) == 2 and all(map(_is_number, band)), "leaderboard_band")
        for gain in record.get("gains") or ():
            numbers = gain["mean"], gain.get("error")
            is_known = gain["mean"] is None or all(map(_is_number, numbers))
            _check_record(is_known and isinstance(gain["over"], str), "gains")
    return record


def _check_score(score: Any, *names: str) -> None:
    """ValueError where a score is neither None nor has numbers of these names."""
    if score is not None:
        _check_record(all(_is_number(score[name]) for name in names), "score")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_record(is_right: bool, name: str) -> None:
    if not is_right:
        raise ValueError(f"its {name} has another form")


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
    return next((candidate for candidate in candidates if reading.is_file(candidate)), None)


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
    if not reading.is_file(copy):
        return None
    content = reading.read_bytes(copy)
    originals = (folder / row["file"] for row in reversed(rows))
    return next(
        (
            path.name
            for path in originals
            if reading.is_file(path) and reading.read_bytes(path) == content
        ),
        None,
    )
