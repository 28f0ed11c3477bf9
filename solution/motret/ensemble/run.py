"""An ensemble from beginning to end. Data flows one way:

runs, files           members, external   ->  members
members               predict, inference  ->  held-out embeddings: by fold, in views, query bank
held-out embeddings   fit, weights        ->  ensemble: weights, views, beta, nested score
members, test         predict, inference  ->  test embeddings
test embeddings       apply               ->  similarities of each query to its candidates
both                  test_shift          ->  is the test like the training; the score to expect
similarities          assigned_test       ->  with --assign: the same after one-to-one assignment
similarities          submission_files    ->  submission.csv, its .npz and .json, log.csv
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from motret.config.scripts import EnsembleConfig
from motret.data import dataset
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.ensemble import (
    apply,
    assigned_test,
    external,
    fit,
    members,
    predict,
    query_bank,
    submission_files,
    summary,
    test_shift,
)
from motret.ensemble.apply import TestSimilarities
from motret.ensemble.assigned_test import AssignedTest
from motret.ensemble.fit import FittedEnsemble
from motret.ensemble.galleries import OofGalleries
from motret.ensemble.inference import Encoder
from motret.ensemble.members import Member
from motret.ensemble.predict import AnyMember
from motret.ensemble.submission_files import ScoredEnsemble, WrittenSubmission
from motret.ensemble.summary import TestScores
from motret.ensemble.test_shift import MatchedCaptions
from motret.errors import ConfigError
from motret.evaluation import motion_shift, run_table, submission_score
from motret.formats import submission
from motret.formats.queries import Query
from motret.utils import reading


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """What an ensemble came to, and the files it wrote.

    shift: lines on whether the test is like what was held out, and the score to expect there.
    """

    n_queries: int
    scored: ScoredEnsemble
    written: WrittenSubmission
    shift: tuple[str, ...]

    def lines(self) -> list[str]:
        """For a terminal: the submission, the table, the scores."""
        ensemble, fixed = self.scored.ensemble, self.scored.fixed
        lines = [self._headline(), *self.scored.summary.lines()]
        if fixed:
            names = ", ".join(member.name for member in fixed)
            lines.append(
                f"the local score leaves out {names}, "
                "which cannot be scored: no out-of-fold predictions"
            )
        lines.append(
            ensemble.local.summary("local score of the other members" if fixed else "local")
        )
        models = {
            run.name: run
            for member in self.scored.members
            if isinstance(member, Member)
            for run in member.folds.values()
        }
        lines += self.shift
        if note := run_table.best_epoch_note(list(models.values())):
            lines.append(note)
        if self.scored.assigned:
            lines += self.scored.assigned.lines()
        if gain := self.scored.summary.assignment:
            lines.append(f"one-to-one assignment: true {gain.mean:+.4f} +- {gain.error:.4f}")
        true = self.scored.summary.true
        if true is not None:
            lines.append(
                f"true score {submission_score.mean_over_queries(true)} ({len(true)} queries)"
            )
        return lines

    def _headline(self) -> str:
        ensemble, file, dated_copy = (
            self.scored.ensemble,
            self.written.file,
            self.written.dated_copy,
        )
        names = ", ".join(row.name for row in self.scored.summary.rows if row.weight)
        views = f"views {', '.join(ensemble.views)}" if ensemble.views else "no further views"
        bank = "no query-bank normalisation"
        if ensemble.beta is not None:
            bank = f"query-bank normalisation with beta {ensemble.beta:g}"
            bank += " and the test's queries" if ensemble.bank_of_queries else ""
        copy = f" (kept as {dated_copy.name})" if dated_copy != file else ""
        if self.written.is_repeat:
            copy = f" (the same as {dated_copy.name}, logged before)"
        return f"{self.n_queries} queries ranked by {names}, {views}, {bank}: {file}{copy}"


def run_ensemble(
    config: EnsembleConfig, data: TrainingData, folds: Folds, test_dir: Path
) -> EnsembleResult:
    """Predicts, fits the ensemble, ranks the test folder's candidates, writes the submission."""
    models = members.gather_members(config, data, folds)
    jobs, features = config.machine.jobs, dict.fromkeys(model.features for model in models)
    tests = {
        kind: dataset.load_test(test_dir, kind, config.data, jobs, not i)
        for i, kind in enumerate(features)
    }
    test = next(iter(tests.values()))
    if config.query_bank == "test":
        query_bank.check_test_queries(len(test.queries))
    for model in models:
        dataset.check_persons(test.store, model.persons, test.queries[0].paths[0].parent)
    scored, fixed = external.read_external_members(
        config.members, config.member_weight, test.queries, data, folds
    )
    if config.assign and (partial_names := [each.name for each in scored if each.is_partial]):
        problem = f"{partial_names[0]} does not score all held-out pairs, which --assign draws from"
        raise ConfigError("--assign", problem, "make it with `rerank.py --gallery 0`")
    encoder = Encoder(config.machine, config.data.work_dir, data.training.captions)
    fitted = fit_members([*models, *scored], test.queries, data, folds, config, encoder)
    distinct, galleries, ensemble = fitted.members, fitted.galleries, fitted.ensemble
    predictions = predict.predict_test(distinct, ensemble, tests, encoder)
    similarities = apply.apply_ensemble(ensemble, predictions, fixed, test)
    seed, assigned = config.machine.seed, None
    if config.assign:
        plain = similarities.ensemble
        assigned = assigned_test.assign_test(plain, test, ensemble, galleries, seed)

    training = dataset.with_features(data, next(iter(tests)), config.data, jobs).store
    shift = test_shift.measure_test_shift(
        fitted.matched,
        motion_shift.measure_shift(training, test.store, folds),
        ensemble,
        galleries,
        apply.test_pools(ensemble, distinct, predictions, similarities.ensemble, test),
        seed,
    )
    true_scores = score_test(similarities, assigned, test.queries, test_dir / "gt.csv")
    result = summary.summarise(ensemble, fixed, true_scores, seed)
    scored_ensemble = ScoredEnsemble(ensemble, distinct, fixed, result, shift.expected, assigned)
    written = submission_files.write_submission_files(
        config, scored_ensemble, test.queries, similarities, test_dir
    )
    from_tokens = [member.name for member in scored if member.predictions.from_tokens]
    lines = tuple(shift.lines(fitted.has_target, from_tokens))
    return EnsembleResult(len(test.queries), scored_ensemble, written, lines)


@dataclass(frozen=True, eq=False)
class FittedMembers:
    """The members that differ, their held-out galleries in the views, and their ensemble.

    matched: the held-out captions, weighted to be as far from the training as the test's;
    has_target: whether the weights were fitted on them.
    """

    members: list[AnyMember]
    galleries: OofGalleries
    ensemble: FittedEnsemble
    matched: MatchedCaptions
    has_target: bool


def fit_members(
    members: Sequence[AnyMember],
    queries: Sequence[Query],
    data: TrainingData,
    folds: Folds,
    config: EnsembleConfig,
    encoder: Encoder,
) -> FittedMembers:
    """Fits an ensemble, on captions like those of the queries where these are unlike the rest."""
    galleries = predict.load_galleries(members, data, folds)
    matched = test_shift.match_captions(queries, galleries, data, folds, config.fold)
    has_target = config.weights == "auto" and matched.shift.is_unlike
    target = matched.weights_by_fold() if has_target else None
    weights = fit.fit_weights(galleries, config, target)
    distinct, galleries = predict.predict_out_of_fold(
        [members[idx] for idx in weights.member_idx],
        galleries.select(weights.member_idx),
        weights,
        data,
        folds,
        config,
        encoder,
    )
    ensemble = fit.fit_ensemble(galleries, weights, config)
    return FittedMembers(distinct, galleries, ensemble, matched, has_target)


def score_test(
    similarities: TestSimilarities,
    assigned: AssignedTest | None,
    queries: Sequence[Query],
    ground_truth: Path,
) -> TestScores | None:
    """The score of each query by each ranking; None where there is no file of right answers."""
    if not reading.is_file(ground_truth):
        return None
    truth = submission.read_ground_truth(ground_truth)
    score = partial(submission_score.ranking_scores, queries, truth)
    networks, in_views = similarities.networks, similarities.best_member_tta
    return TestScores(
        tuple(score(of_member) for of_member in similarities.members),
        np.mean([score(of_network) for of_network in networks], axis=0) if networks else None,
        None if in_views is None else score(in_views),
        score(similarities.ensemble),
        None if assigned is None else score(assigned.similarities),
    )
