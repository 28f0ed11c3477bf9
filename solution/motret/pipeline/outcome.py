"""What a run of the whole way came to: the summary that `run_all.sh` ends with."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motret.config import base
from motret.evaluation.gallery_ranks import LEADERBOARD_QUERIES
from motret.formats import submission_log
from motret.utils import files

RULE = "-" * 78


def summary_lines(
    folders: Mapping[str, Path],
    submission: str | None,
    report_calls: Sequence[Sequence[str]],
    drawn: bool,
    generated: bool,
) -> list[str]:
    """The lines of the summary.

    folders: by flag, where the scripts wrote; submission: the file to upload, None without a test; report_calls: arguments of report.py's
    calls; drawn: whether the report was; generated: whether the data are the generated challenge.
    """
    run_names = _run_names(report_calls[0])
    reports = [base.relative_path(folders["out_dir"] / name / "report" / "index.html") for name in run_names]
    look = [(str(reports[0]), "curves, attention, failures, each held-out query (one such page a run)")] if drawn else []
    if submission:
        kept = submission_log.latest_submission(folders["submissions_dir"])
        about = files.read_json(kept.with_suffix(".json")) if kept else None
        if about is None:
            return [RULE, f"no summary: {folders['submissions_dir'] / 'log.csv'} names no submission that can be read", RULE]
        page = base.relative_path(folders["submissions_dir"] / "report" / "index.html")
        look = [(str(page), "each test query, its ranked candidates as moving figures")] * drawn + look
        scores, upload = _scores(about), [("upload", submission, "")]
    else:
        scores, upload = [("local scores", "those of the table above", "no test folder, so nothing to submit")], []
    rows = [*scores, *upload, *(("open" if not number else "", *row) for number, row in enumerate(look))]
    if generated:
        rows.append(("next", f"put the competition's data into {base.default_path('data_dir')}/", "and run the same command"))
    return [RULE, *_align_rows(rows), RULE]


def _scores(about: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The rows on scores, from the JSON file beside a submission."""
    local, true = about["local_score"], about["true_score"]
    rows = []
    if local:
        rows.append(("local score", _with_error(local), f"on {local['motions']} motions, none ranked by a model that had seen it"))
    else:
        rows.append(("local score", "none", "a member has no out-of-fold part, so nothing tells what the mix is worth"))
    if band := about.get("leaderboard_band"):
        rows.append(("leaderboard", "{:.2f} to {:.2f}".format(*band), f"9 of 10 leaderboards of {LEADERBOARD_QUERIES} queries"))
    if true:
        rows.append(("true score", _with_error(true), "on the test, whose answers are known here"))
    members = about["members"]
    if len(members) > 1 and about.get("gains") and about["gains"][0]["mean"] is not None:
        gain = about["gains"][0]
        rows.append(("ensemble gain", f"{gain['mean']:+.4f} +- {gain['error']:.4f}", f"over {gain['over']}, the best single model"))
    for number, member in enumerate(members):
        score = f", local score {member['local_score']['mean']:.4f}" if member.get("local_score") else ""
        rows.append(("members" if not number else "", f"weight {member['weight']:.3f}", f"{member['run']}{score}"))
    return rows


def _with_error(score: Mapping[str, float]) -> str:
    return f"{score['mean']:.4f}" + (f" +- {score['error']:.4f}" if math.isfinite(score["error"]) else "")


def _run_names(call: Sequence[str]) -> list[str]:
    """The runs that a call of report.py names."""
    words = call[call.index("--run") + 1 :]
    return list(words[: next((place for place, word in enumerate(words) if word.startswith("--")), len(words))])


def _align_rows(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Three columns; a long second one pushes the third to the right."""
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) for row in rows if len(row[1]) < 32)
    return [f"{head.ljust(first)}  {value.ljust(second)}  {note}".rstrip() for head, value, note in rows]
