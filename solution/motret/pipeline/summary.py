"""The summary that run_all.sh ends with: scores, the file to upload, pages to open."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motret.config import base
from motret.evaluation.gallery_ranks import LEADERBOARD_QUERIES
from motret.formats import submission_log

RULE = "-" * 78
Row = tuple[str, str, str]
"""What it is, its value, a note."""


def summary_lines(
    folders: Mapping[str, Path],
    submission: str | None,
    run_names: Sequence[str],
    has_report: bool,
    generated: bool,
) -> list[str]:
    """The lines of the summary.

    folders: flag -> folder that scripts wrote to; submission: the file to upload, None without a
    test; run_names: the runs of the report; has_report: whether it was drawn; generated: whether
    the data are the generated challenge.
    """
    submissions_dir = folders["submissions_dir"]
    pages = []
    if has_report:
        report = base.relative_path(folders["out_dir"] / run_names[0] / "report" / "index.html")
        note = "curves, attention, failures, each held-out query (one such page per run)"
        pages = [(str(report), note)]
    if submission is None:
        note = "no test folder, so there is nothing to submit"
        rows: list[Row] = [("local scores", "in the table above", note)]
    else:
        saved = submission_log.latest_submission(submissions_dir)
        info = submission_log.read_record(saved) if saved else None
        if info is None:
            problem = f"{submissions_dir / 'log.csv'} names no submission that can be read"
            return [RULE, f"no summary: {problem}", RULE]
        rows = [*_score_rows(info), ("upload", submission, "")]
        if has_report:
            page = base.relative_path(submissions_dir / "report" / "index.html")
            pages.insert(0, (str(page), "each test query, its ranked candidates as moving figures"))
    rows += [("" if index else "open", *page) for index, page in enumerate(pages)]
    if generated:
        data_dir = base.default_path("data_dir")
        rows.append(
            ("next", f"put the competition's data into {data_dir}/", "and run the same command")
        )
    return [RULE, *_align_rows(rows), RULE]


def _score_rows(info: Mapping[str, Any]) -> list[Row]:
    """The rows on scores, from the JSON file of a submission."""
    rows: list[Row] = []
    if score := info.get("local_score"):
        note = f"on {score['motions']} motions, none ranked by a model trained on it"
        rows.append(("local score", _with_error(score), note))
    else:
        note = "a member has no out-of-fold predictions, so the ensemble cannot be scored"
        rows.append(("local score", "none", note))
    if interval := info.get("leaderboard_band"):
        note = f"9 of 10 leaderboards of {LEADERBOARD_QUERIES} queries like the held-out captions"
        rows.append(("leaderboard", "{:.2f} to {:.2f}".format(*interval), note))
    if score := info.get("expected_test_score"):
        note = "on this test, by how sure the models are of their answers"
        rows.append(("to expect", _with_error(score), note))
    if score := info.get("true_score"):
        note = "on the test, whose ground truth is known here"
        rows.append(("true score", _with_error(score), note))
    members = info.get("members", ())
    gains = info.get("gains")
    if len(members) > 1 and gains and gains[0]["mean"] is not None:
        note = f"over {gains[0]['over']}, the best single model"
        gain = f"{gains[0]['mean']:+.4f} +- {gains[0]['error']:.4f}"
        rows.append(("ensemble gain", gain, note))
    for index, member in enumerate(members):
        score = member.get("local_score")
        note = member["run"] + (f", local score {score['mean']:.4f}" if score else "")
        rows.append(("" if index else "members", f"weight {member['weight']:.3f}", note))
    return rows


def _with_error(score: Mapping[str, float]) -> str:
    error = f" +- {score['error']:.4f}" if math.isfinite(score["error"]) else ""
    return f"{score['mean']:.4f}{error}"


def _align_rows(rows: Sequence[Row]) -> list[str]:
    """Lines in three aligned columns; a long second cell pushes the third to the right."""
    first = max(len(row[0]) for row in rows)
    second = max(len(row[1]) for row in rows if len(row[1]) < 32)
    return [
        f"{name.ljust(first)}  {value.ljust(second)}  {note}".rstrip() for name, value, note in rows
    ]
