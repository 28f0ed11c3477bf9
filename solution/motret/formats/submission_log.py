"""submissions/log.csv: a row for each submission, and what the leaderboard said of it."""

import csv
from collections.abc import Sequence
from pathlib import Path

from motret.errors import ConfigError, DataError
from motret.utils import files

COLUMNS = ("time", "file", "local_score", "error", "members", "hash", "git", "public_score")


def append_submission(path: Path, row: Sequence[str]) -> None:
    """Adds a line to the log of submissions, which is written anew whole."""
    write_log(path, [*read_log(path), dict(zip(COLUMNS, row, strict=True))])


def record_public_score(log: Path, file: Path, public_score: float) -> str:
    """Fills in what the leaderboard said of a submission: the kept one that is named, or that the named file is a copy of.

    Returns a line that says so. DataError where the log has no such submission.
    """
    if not 0 <= public_score <= 1:
        raise ConfigError("public_score", f"is {public_score:g}", "give the leaderboard's score, from 0 to 1")
    rows = read_log(log)
    found = next((row for row in reversed(rows) if row["file"] in (file.name, _copied(file, log.parent, rows))), None)
    if found is None:
        raise DataError(log, f"has no row of {file.name}", "name a file of the log, or a copy of one")
    found["public_score"] = f"{public_score:g}"
    write_log(log, rows)
    local = f"local score {found['local_score']} +- {found['error']}" if found["local_score"] else "no local score"
    return f"{found['file']}: public score {public_score:g}, {local}"


def latest_submission(folder: Path) -> Path | None:
    """The kept submission that was written last to a folder of submissions; None where its log has none."""
    rows = read_log(folder / "log.csv")
    return folder / rows[-1]["file"] if rows else None


def find_submission(log: Path, hashed: str) -> Path | None:
    """The kept submission that the log has under this hash; None where there is none, or its file is gone."""
    names = [row["file"] for row in read_log(log) if row["hash"] == hashed]
    return next((kept for name in reversed(names) if (kept := log.parent / name).is_file()), None)


def move_latest(log: Path, name: str) -> None:
    """Makes the row of a kept submission the last of the log: it is the latest again."""
    rows = read_log(log)
    write_log(log, [row for row in rows if row["file"] != name] + [row for row in rows if row["file"] == name])


def _copied(file: Path, folder: Path, rows: Sequence[dict[str, str]]) -> str | None:
    """Name of the kept submission of the log that a file is a copy of; None where there is none."""
    if not file.is_file():
        return None
    content = file.read_bytes()
    kept = (folder / row["file"] for row in reversed(rows))
    return next((path.name for path in kept if path.is_file() and path.read_bytes() == content), None)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of the log, none where there is no log yet. DataError where its columns are not ours."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS or any(None in row or None in row.values() for row in rows):
        raise DataError(path, f"its columns are not {','.join(COLUMNS)}", "mend it, or move it away: a new one is begun")
    return rows


def write_log(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes the log, whole or not at all."""
    files.write_csv(path, rows, COLUMNS)
