"""Submissions: the file, what went into it, and the log of all of them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from motret import files, runs, submission
from motret.challenge import Query
from motret.config import EnsembleSettings
from motret.metrics import Score
from motret.rank import LocalScore
from motret.runs import Run

LOG_COLUMNS = ("time", "file", "local_score", "error", "members", "hash", "git", "public_score")


@dataclass(frozen=True)
class Published:
    """A submission written: the dated file, the file to upload, and its true score with error where the answers are known."""

    kept: Path
    file: Path
    truth: Score | None


def _member(run: Run) -> dict[str, object]:
    return {"run": run.name, "folds": run.finished(), "full": run.full(), "settings": runs.settings_hash(run.settings)}


def publish(
    settings: EnsembleSettings,
    members: Sequence[Run],
    queries: Sequence[Query],
    ranked: dict[str, list[int]],
    local: LocalScore,
    test_dir: Path,
) -> Published:
    """Writes the ranking as a dated submission, a JSON beside it, a row of the log, and the file to upload; its form is checked."""
    now = datetime.now()
    mixed = files.digest([(run.name, runs.settings_hash(run.settings)) for run in members], settings.fold, sorted(ranked.items()))[:6]
    label = members[0].name if len(members) == 1 else f"mean-of-{len(members)}"
    kept = settings.submissions_dir / f"{now:%Y-%m-%d_%H-%M-%S}_{label}_cv{local.score.mean:.4f}_{mixed}.csv"
    file = settings.out or settings.submissions_dir / "submission.csv"
    for path in (kept, file):
        submission.write_submission(path, ranked, settings.candidate_format)
        answers = submission.read_submission(path, queries)
    gt = test_dir / "gt.csv"
    truth = submission.score(answers, submission.read_ground_truth(gt)) if gt.is_file() else None
    about = {
        "members": [_member(run) for run in members],
        "fold": settings.fold,
        "local_score": asdict(local.score) | {"by_fold": {fold: asdict(score) for fold, score in local.by_fold.items()}},
        "true_score": asdict(truth) if truth else None,
        "data": members[0].data,
        "folds": members[0].folds,
        "git": runs.git_commit(),
    }
    files.write_json(kept.with_suffix(".json"), about)
    names = " ".join(run.name for run in members)
    score = (f"{local.score.mean:.4f}", f"{local.score.error:.4f}")
    append_row(settings.submissions_dir / "log.csv", (f"{now:%Y-%m-%d %H:%M:%S}", kept.name, *score, names, mixed, about["git"] or "", ""))
    return Published(kept, file, truth)


def append_row(path: Path, row: Sequence[str]) -> None:
    """Adds a line to the log of submissions, which is written anew whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not path.is_file():
        writer.writerow(LOG_COLUMNS)
    writer.writerow(row)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    files.write_whole(path, lambda beside: beside.write_text(before + text.getvalue(), encoding="utf-8"))
