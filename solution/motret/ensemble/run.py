"""An ensemble from beginning to end. Data flows one way:

runs, files           members, external   ->  members
members               predict, inference  ->  held-out embeddings: by fold, in views, query bank
held-out embeddings   fit, weights        ->  ensemble: weights, views, beta, nested score
members, test         predict, inference  ->  test embeddings
test embeddings       apply               ->  similarities of each query to its candidates
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
from motret.errors import ConfigError
from motret.evaluation import (
    caption_shift,
    motion_shift,
    run_table,
    slices,
    submission_score,
)
from motret.evaluation.caption_shift import CaptionShift
from motret.evaluation.slices import HeldOutCaptions
from motret.formats import submission
from motret.formats.queries import Query
from motret.utils import reading


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """What an ensemble came to, and the files it wrote.

    shift: lines on whether the test's captions and motions are like the held-out ones.
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
    distinct, galleries, ensemble = fit_members([*models, *scored], data, folds, config, encoder)
    predictions = predict.predict_test(distinct, ensemble, tests, encoder)
    similarities = apply.apply_ensemble(ensemble, predictions, fixed, test)
    seed, assigned = config.machine.seed, None
    if config.assign:
        plain = similarities.ensemble
        assigned = assigned_test.assign_test(plain, test, ensemble, galleries, seed)

    true_scores = score_test(similarities, assigned, test.queries, test_dir / "gt.csv")
    result = summary.summarise(ensemble, fixed, true_scores, seed)
    scored_ensemble = ScoredEnsemble(ensemble, distinct, fixed, result, assigned)
    written = submission_files.write_submission_files(
        config, scored_ensemble, test.queries, similarities, test_dir
    )
    training = dataset.with_features(data, next(iter(tests)), config.data, jobs).store
    of_motions = motion_shift.measure_shift(training, test.store, folds)
    of_captions, line = measure_caption_shift(
        test.queries, ensemble, galleries, data, folds, config.fold
    )
    lines = [line, of_motions.line()]
    from_tokens = [member.name for member in scored if member.predictions.from_tokens]
    if from_tokens and (of_captions.is_unlike or of_motions.is_unlike):
        lines.append(
            f"warning: leave {' and '.join(from_tokens)} out: on such a test, what is learned from "
            "motion tokens loses more than held-out motions can tell (docs/usage.md)"
        )
    return EnsembleResult(len(test.queries), scored_ensemble, written, tuple(lines))


def fit_members(
    members: Sequence[AnyMember],
    data: TrainingData,
    folds: Folds,
    config: EnsembleConfig,
    encoder: Encoder,
) -> tuple[list[AnyMember], OofGalleries, FittedEnsemble]:
    """The members that differ, their held-out galleries in the views, and their ensemble."""
    galleries = predict.load_galleries(members, data, folds)
    weights = fit.fit_weights(galleries, config)
    distinct, galleries = predict.predict_out_of_fold(
        [members[idx] for idx in weights.member_idx],
        galleries.select(weights.member_idx),
        weights,
        data,
        folds,
        config,
        encoder,
    )
    return distinct, galleries, fit.fit_ensemble(galleries, weights, config)


def measure_caption_shift(
    queries: Sequence[Query],
    ensemble: FittedEnsemble,
    galleries: OofGalleries,
    data: TrainingData,
    folds: Folds,
    fold: int | None,
) -> tuple[CaptionShift, str]:
    """Whether the test's captions are like the held-out ones, and the line that says so.

    If they are not, the line tells the score to expect. That is the score of the members' mean in
    the views, without the query bank. fold: the one whose models alone rank the test; it is
    compared with what they were trained on.
    """
    captions = data.training.captions
    data_idx = {scored: folds.val_idx(scored) for scored in ensemble.folds}
    ranks = dict(zip(ensemble.folds, ensemble.ensemble_ranks, strict=True))
    held_out = HeldOutCaptions.of(ranks, data_idx, captions)
    distance = slices.distance_to_other_folds(held_out, captions, folds)
    test = [caption for query in queries for caption in query.captions]
    trained_idx = range(len(captions)) if fold is None else folds.train_idx(fold)
    trained = [captions[index] for index in trained_idx]

    def similarity(scored: int) -> np.ndarray:
        mixture = tuple(ensemble.weights)
        return galleries.folds[scored].compared_similarity(mixture, ensemble.views)

    shift = caption_shift.measure_shift(test, distance, trained)
    return shift, shift.line(lambda: caption_shift.expected_score(shift, held_out, similarity))


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
