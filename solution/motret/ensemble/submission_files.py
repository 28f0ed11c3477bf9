"""The files that an ensemble writes.

submission.csv                        the file to upload
DATE_NAME_SCORE_HASH.csv              its dated copy
DATE_NAME_SCORE_HASH.npz              similarities to the candidates, ensemble and members
DATE_NAME_SCORE_HASH.json             members, weights, scores
log.csv                               a row for each submission
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from motret.config.scripts import EnsembleConfig
from motret.data.validation_queries import MARKER
from motret.ensemble import external
from motret.ensemble.apply import TestSimilarities
from motret.ensemble.assigned_test import AssignedTest
from motret.ensemble.external import FixedWeightMember
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.members import Member
from motret.ensemble.predict import AnyMember
from motret.ensemble.summary import EnsembleSummary
from motret.evaluation import gallery_ranks, submission_score
from motret.evaluation.metrics import Score
from motret.formats import submission, submission_log
from motret.formats.queries import Query
from motret.runs.environment import git_commit
from motret.runs.run import settings_hash
from motret.utils import files, reading


@dataclass(frozen=True)
class WrittenSubmission:
    """Where a submission is.

    file: the file to upload; dated_copy: its dated copy, the same file for validation queries.
    is_repeat: whether the same submission was kept and logged before.
    """

    file: Path
    dated_copy: Path
    is_repeat: bool = False


@dataclass(frozen=True, eq=False)
class ScoredEnsemble:
    """An ensemble with its members, the members with a given weight, and its scores.

    expected: the score to expect on the test (`test_shift.TestShift`); assigned: the test after
    one-to-one assignment, None without.
    """

    ensemble: FittedEnsemble
    members: Sequence[AnyMember]
    fixed: Sequence[FixedWeightMember]
    summary: EnsembleSummary
    expected: Score
    assigned: AssignedTest | None = None

    def members_json(self) -> list[dict[str, Any]]:
        """The members, each with its weight and its local score."""
        fitted_weight = 1 - sum(member.weight for member in self.fixed)
        entries = []
        for member, weight, ranks in zip(
            self.members, self.ensemble.weights, self.ensemble.member_ranks, strict=True
        ):
            entry: dict[str, Any] = {
                "run": member.name,
                "weight": round(float(weight) * fitted_weight, 6),
                "local_score": asdict(gallery_ranks.mean_score(ranks)),
            }
            if isinstance(member, Member):
                folds = [fold for _, fold in member.models]
                entry |= {
                    "folds": [fold for fold in folds if fold is not None],
                    "full": None in folds,
                    "runs": list(member.runs),
                    "settings": settings_hash(member.models[0][0].config),
                }
            entries.append(entry)
        return entries + [{"run": member.name, "weight": member.weight} for member in self.fixed]

    def to_json(self, config: EnsembleConfig) -> dict[str, Any]:
        """What the submission was made of, and its scores."""
        local, true = self.ensemble.local, self.summary.true
        score = asdict(local.score) | {
            "by_fold": {fold: asdict(of_fold) for fold, of_fold in local.by_fold.items()}
        }
        run = next(member.models[0][0] for member in self.members if isinstance(member, Member))
        return {
            "members": self.members_json(),
            "views": list(self.ensemble.views),
            "query_bank": self.ensemble.beta,
            "fold": config.fold,
            "local_score": None if self.fixed else score,
            **({"local_score_of_the_other_members": score} if self.fixed else {}),
            "expected_test_score": asdict(self.expected),
            "true_score": None
            if true is None
            else asdict(submission_score.mean_over_queries(true)),
            **self.summary.to_json(),
            **({"assignment": self.assigned.to_json()} if self.assigned else {}),
            "data": run.data,
            "folds": run.folds,
            "git": git_commit(),
        }


def _same_content(first: Path, second: Path) -> bool:
    return reading.read_bytes(first) == reading.read_bytes(second)


def write_submission_files(
    config: EnsembleConfig,
    scored: ScoredEnsemble,
    queries: Sequence[Query],
    similarities: TestSimilarities,
    test_dir: Path,
) -> WrittenSubmission:
    """Writes the ranking, a dated copy with similarities and settings, and the log's row.

    The log grows by a row, unless the same submission is kept already. With members of a given
    weight, which no score counts, there is no local score, neither in the name nor in the log.
    Validation queries (those of `validate.py make_batches`) are no submission: their ranking goes
    to --out, by default ranked.csv in their folder, and nowhere else.
    """
    now, local = datetime.now(), scored.ensemble.local
    ensemble = (
        scored.assigned.similarities if scored.assigned is not None else similarities.ensemble
    )
    ranking: dict[str, Sequence[int]] = dict(submission.rank_candidates(queries, ensemble))
    entries = scored.members_json()
    names = [str(entry["run"]) for entry in entries]
    by_name = sorted(
        entries, key=lambda entry: entry["run"]
    )  # the order of the runs makes no other submission
    content = files.content_hash(
        by_name, scored.ensemble.beta, config.fold, sorted(ranking.items())
    )[:6]
    log = config.submissions_dir / "log.csv"
    if is_validation := (test_dir / MARKER).is_file():
        file = dated_copy = config.out or test_dir / "ranked.csv"
    else:
        file = config.out or config.submissions_dir / "submission.csv"
        label = (
            names[0].removesuffix(".npz").removesuffix(".csv")
            if len(names) == 1
            else f"ensemble-of-{len(names)}"
        )
        score = "unscored" if scored.fixed else f"cv{local.score.mean:.4f}"
        dated_copy = (
            config.submissions_dir / f"{now:%Y-%m-%d_%H-%M-%S}_{label}_{score}_{content}.csv"
        )
    earlier = None if is_validation else submission_log.find_submission(log, content)
    for path in dict.fromkeys((file, dated_copy)):
        submission.write_submission(path, ranking, config.candidate_format, config.top_k)
        submission.read_submission(path, queries, config.top_k)
        is_repeat = path == file and earlier is not None and _same_content(earlier, file)
        if is_repeat and earlier is not None:
            submission_log.move_latest(log, earlier.name)
            return WrittenSubmission(file, earlier, is_repeat=True)
    by_member = list(zip(names, similarities.members, strict=True))
    external.save_similarities(dated_copy.with_suffix(".npz"), queries, ensemble, by_member)
    settings = scored.to_json(config)
    files.write_json(dated_copy.with_suffix(".json"), settings)
    if not is_validation:
        scores = (
            ("", "") if scored.fixed else (f"{local.score.mean:.4f}", f"{local.score.error:.4f}")
        )
        members = " ".join(names)
        row = (
            f"{now:%Y-%m-%d %H:%M:%S}",
            dated_copy.name,
            *scores,
            members,
            content,
            settings["git"] or "",
            "",
        )
        submission_log.append_submission(log, row)
    return WrittenSubmission(file, dated_copy)
