"""Submissions: the file, its similarities, what went into it."""
# MERGED: """An ensemble from beginning to end: members, weights, the test's candidates, the submission, and what it is worth."""
#

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from motret.config.scripts import EnsembleConfig
from motret.data import dataset
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.data.validation_queries import MARKER
from motret.ensemble import external, fit, members, predict, summary
from motret.ensemble.external import ExternalPredictions
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.inference import Encoder
from motret.ensemble.members import ExternalMember, Member
from motret.ensemble.predict import Similarities, TestPredictions
from motret.ensemble.summary import EnsembleSummary, TestScores
from motret.errors import ConfigError
from motret.evaluation import gallery_ranks, metrics, run_table, submission_score
from motret.formats import challenge, submission, submission_log
from motret.formats.queries import Query
from motret.formats.text_files import query_key
from motret.runs.run import git_commit, settings_hash
from motret.utils import files


@dataclass(frozen=True)
class WrittenSubmission:
    """A submission written: the file to upload, and the dated one that is kept (the same where validation queries were ranked).

    again: it is the same as one that was kept and logged before.
    """

    file: Path
    kept: Path
    again: bool = False


def write_submission_files(
    config: EnsembleConfig,
    fusion: FittedEnsemble,
    fixed: Sequence[tuple[ExternalPredictions, float]],
    queries: Sequence[Query],
    found: TestPredictions,
    verdict: EnsembleSummary,
    test_dir: Path,
) -> WrittenSubmission:
    """Writes the ranking to the file to upload and, with its similarities (.npz, those of each member too) and what went into it
    (.json), as a dated one.

    The log grows by a row, unless the same submission is kept already. With `fixed` files, which no score counts, there is no local
    score, neither in the name nor in the log. Validation queries (those of `validate.py make_batches`) are no submission: their ranking
    goes to --out, by default ranked.csv beside them, and nowhere else.
    """
    now, local = datetime.now(), fusion.local
    ranked = submission.rank_candidates(queries, found.together)
    entries = _members_json(fusion, fixed)
    by_name = sorted(entries, key=lambda entry: entry["run"])  # the order in which runs are named makes no other submission
    mixed = files.content_hash(by_name, fusion.beta, config.fold, sorted(ranked.items()))[:6]
    validation = (test_dir / MARKER).is_file()
    names = [str(entry["run"]) for entry in entries]
    label = names[0].removesuffix(".npz").removesuffix(".csv") if len(names) == 1 else f"ensemble-of-{len(names)}"
    file = config.out or (test_dir / "ranked.csv" if validation else config.submissions_dir / "submission.csv")
    score = "unscored" if fixed else f"cv{local.score.mean:.4f}"
    kept = config.submissions_dir / f"{now:%Y-%m-%d_%H-%M-%S}_{label}_{score}_{mixed}.csv"
    kept = file if validation else kept
    log = config.submissions_dir / "log.csv"
    earlier = None if validation else submission_log.find_submission(log, mixed)
    for path in dict.fromkeys((file, kept)):
        submission.write_submission(path, ranked, config.candidate_format, config.top_k)
        submission.read_submission(path, queries, config.top_k)
        if path == file and earlier is not None and earlier.read_bytes() == file.read_bytes():
            submission_log.move_latest(log, earlier.name)
            return WrittenSubmission(file, earlier, again=True)
    external.save_similarities(kept.with_suffix(".npz"), queries, found.together, list(zip(names, found.alone, strict=True)))
    true = next((row.true for row in verdict.rows[-1:] if row.true is not None), None)
    told = asdict(local.score) | {"by_fold": {fold: asdict(score) for fold, score in local.by_fold.items()}}
    about = {
        "members": entries,
        "views": list(fusion.views),
        "query_bank": fusion.beta,
        "fold": config.fold,
        "local_score": None if fixed else told,
        **({"local_score_of_the_other_members": told} if fixed else {}),
        "true_score": asdict(submission_score.mean_over_queries(true)) if true is not None else None,
        **verdict.about(),
        **_origin(fusion),
        "git": git_commit(),
    }
    files.write_json(kept.with_suffix(".json"), about)
    if not validation:
        scores = ("", "") if fixed else (f"{local.score.mean:.4f}", f"{local.score.error:.4f}")
        row = (f"{now:%Y-%m-%d %H:%M:%S}", kept.name, *scores, " ".join(names), mixed, about["git"] or "", "")
        submission_log.append_submission(log, row)
    return WrittenSubmission(file, kept)


def _members_json(fusion: FittedEnsemble, fixed: Sequence[tuple[ExternalPredictions, float]]) -> list[dict[str, Any]]:
    """What took part, each with its weight and the local score it earns alone."""
    left = 1 - sum(share for _, share in fixed)
    entries = []
    for member, weight, alone in zip(fusion.members, fusion.weights, fusion.alone, strict=True):
        entry: dict[str, Any] = {
            "run": member.name,
            "weight": round(float(weight) * left, 6),
            "local_score": asdict(gallery_ranks.mean_score(alone)),
        }
        if isinstance(member, Member):
            folds = [fold for _, fold in member.models if fold is not None]
            entry |= {"folds": folds, "full": (None in [fold for _, fold in member.models]), "runs": list(member.runs)}
            entry["settings"] = settings_hash(member.models[0][0].config)
        entries.append(entry)
    return entries + [{"run": one.name, "weight": share} for one, share in fixed]


def _origin(fusion: FittedEnsemble) -> dict[str, str]:
    run = next(member.models[0][0] for member in fusion.members if not isinstance(member, ExternalMember))
    return {"data": run.data, "folds": run.folds}


@dataclass(frozen=True)
class EnsembleResult:
    """What came of it."""

    queries: int
    fusion: FittedEnsemble
    verdict: EnsembleSummary
    published: WrittenSubmission
    unscored: tuple[str, ...]
    """Files that took part with a given weight: no local score counts them."""

    def lines(self) -> list[str]:
        """For people: the submission, the table, the scores."""
        took_part = ", ".join(row.name for row in self.verdict.rows if row.weight)
        file, kept = self.published.file, self.published.kept
        beside = f" (kept as {kept.name})" if kept != file else ""
        if self.published.again:
            beside = f" (the same as {kept.name}, logged before)"
        bank = f"query-bank normalisation with beta {self.fusion.beta:g}" if self.fusion.beta else "no query-bank normalisation"
        views = f"views {', '.join(self.fusion.views)}" if self.fusion.views else "no further views"
        said = [f"{self.queries} queries ranked by {took_part}, {views}, {bank}: {file}{beside}", *self.verdict.lines()]
        if self.unscored:
            said.append(
                f"the local score leaves {', '.join(self.unscored)} out, which has no out-of-fold part: nothing tells that of the mix"
            )
        said.append(self.fusion.local.summary("local score of the other members" if self.unscored else "local"))
        models = {run.name: run for member in self.fusion.members if isinstance(member, Member) for run in member.folds.values()}
        if chosen := run_table.best_epoch_note(list(models.values())):
            said.append(chosen)
        true = self.verdict.rows[-1].true
        return said if true is None else [*said, f"true score {submission_score.mean_over_queries(true)} ({len(true)} queries)"]


def run_ensemble(config: EnsembleConfig, data: TrainingData, folds: Folds, test_dir: Path) -> EnsembleResult:
    """Fits the ensemble, ranks the test folder's candidates, writes the submission."""
    gathered = members.gather_members(config, data, folds)
    kinds = {member.features for member in gathered}
    jobs = config.machine.jobs
    tests = {kind: dataset.load_test(test_dir, kind, config.data, jobs, not number) for number, kind in enumerate(kinds)}
    queries = next(iter(tests.values())).queries
    scored, fixed = _read_external(config, queries, data, folds)
    encoder = Encoder(config.machine, config.data.work_dir, data.training.captions)
    fitted = fit.fit_ensemble([*gathered, *scored], data, folds, config, encoder)
    found = predict.predict(fitted, fixed, tests, encoder)
    gt = test_dir / "gt.csv"
    true = _true_scores(found, queries, submission.read_ground_truth(gt)) if gt.is_file() else None
    judged = summary.summarise(fitted, [(one.name, share) for one, share in fixed], true, config.machine.seed)
    published = write_submission_files(config, fitted, fixed, queries, found, judged, test_dir)
    return EnsembleResult(len(queries), fitted, judged, published, tuple(one.name for one, _ in fixed))


def _read_external(
    config: EnsembleConfig, queries: Sequence[Query], data: TrainingData, folds: Folds
) -> tuple[list[ExternalMember], list[tuple[ExternalPredictions, float]]]:
    """The members made elsewhere: those that a score can weigh, and the others with the weights they are given."""
    told = [external.read_external(path, queries, data, folds) for path in config.members]
    scored = [ExternalMember(one.name, one) for one in told if one.out_of_fold]
    rest = [one for one in told if not one.out_of_fold]
    if len(rest) != len(config.member_weight):
        names = ", ".join(one.name for one in rest) or "none of --members"
        problem = f"{len(config.member_weight)} weights, and {len(rest)} members without out-of-fold part ({names})"
        raise ConfigError("--member_weight", problem, "no score can weigh those: give each its share of the mean, as 0.2")
    return scored, list(zip(rest, config.member_weight, strict=True))


def _true_scores(found: TestPredictions, queries: Sequence[Query], truth: dict[str, int]) -> TestScores:
    """The score of each query by all that ranks them."""

    def score(similarities: Similarities) -> np.ndarray:
        ranked = submission.rank_candidates(queries, similarities)
        answers = {query_key(query): tuple(order[: challenge.TOP_K]) for query, order in ranked.items()}
        return metrics.submission_scores(answers, truth)

    network = np.mean([score(own) for own in found.networks], axis=0) if found.networks else None
    viewed = None if found.viewed is None else score(found.viewed)
    return TestScores(tuple(map(score, found.alone)), network, viewed, score(found.together))
