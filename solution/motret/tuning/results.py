"""What a study has come to: default and best trial compared, what was confirmed, and the files that
hold it."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from motret.data.folds import Folds
from motret.errors import RunError
from motret.evaluation import metrics
from motret.evaluation.metrics import Score
from motret.tuning import confirmation, plots
from motret.tuning.confirmation import Confirmation, score_json
from motret.tuning.scores import SCORES, load_scores, trial_scores
from motret.tuning.study import (
    StudyPlan,
    completed_trials,
    confirmation_key,
    default_trial,
    ended_trials,
    format_folds,
    score_of,
)
from motret.tuning.trial import val_groups
from motret.utils import files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningResult:
    """Default and best trial of a study, scored on the folds of the search, and what was confirmed
    on others.

    gain: of the best over the default on the folds that chose it, which flatters it.
    """

    default: FrozenTrial
    best: FrozenTrial
    default_score: Score
    best_score: Score
    gain: Score
    confirmed: tuple[Confirmation, ...]

    @property
    def adopted(self) -> Confirmation | None:
        """The confirmed trial whose values are adopted; None where the default stands."""
        return confirmation.choose_adopted(self.confirmed)

    @property
    def values(self) -> dict[str, Any]:
        """The adopted settings; none where the default stands."""
        return dict(self.adopted.values) if self.adopted else {}

    @property
    def errors_needed(self) -> float | None:
        """Standard errors that a gain had to exceed; None where nothing was confirmed."""
        if not self.confirmed:
            return None
        return confirmation.errors_needed(len(self.confirmed), self.confirmed[0].gain.groups)


def collect_results(plan: StudyPlan, study: Study, folds: Folds) -> TuningResult:
    """Compares the best trial with the default, and what was confirmed. RunError where the default
    has no score yet, or a file with scores is missing."""
    default = default_trial(plan, study)
    if default is None:
        problem = "the default configuration has no score yet"
        raise RunError(plan.folder, problem, "run the same command again, with more --trials")
    best = max(completed_trials(study), key=lambda trial: (score_of(trial), -trial.number))
    groups = val_groups(folds, plan.folds)
    best_scores, default_scores = (trial_scores(plan, trial) for trial in (best, default))
    return TuningResult(
        default=default,
        best=best,
        default_score=metrics.cluster_robust_mean(default_scores, groups),
        best_score=metrics.cluster_robust_mean(best_scores, groups),
        gain=metrics.cluster_robust_mean(best_scores - default_scores, groups),
        confirmed=tuple(_confirmations(plan, study, default, folds)),
    )


def _confirmations(
    plan: StudyPlan, study: Study, default: FrozenTrial, folds: Folds
) -> Iterator[Confirmation]:
    """Every trial that was ever confirmed on all confirming folds, since each was a chance of a
    false gain."""
    default_scores, groups = _confirmed_scores(plan, study, default), None
    for trial in completed_trials(study):
        scores = _confirmed_scores(plan, study, trial)
        if scores is None or default_scores is None or trial.number == default.number:
            continue
        groups = val_groups(folds, plan.confirm_folds) if groups is None else groups
        yield Confirmation(
            trial=trial.number,
            values=dict(trial.params),
            score=metrics.cluster_robust_mean(scores, groups),
            default=metrics.cluster_robust_mean(default_scores, groups),
            gain=metrics.cluster_robust_mean(scores - default_scores, groups),
        )


def _confirmed_scores(plan: StudyPlan, study: Study, trial: FrozenTrial) -> np.ndarray | None:
    """Per-motion scores (M,) of a trial on the confirming folds; None where one is missing."""
    entries = [
        study.user_attrs.get(confirmation_key(trial.number, fold), {})
        for fold in plan.confirm_folds
    ]
    if not entries or not all(SCORES in entry for entry in entries):
        return None
    return np.concatenate([load_scores(plan, entry[SCORES]) for entry in entries])


# ---- files


def write_results(plan: StudyPlan, study: Study, result: TuningResult, redraw: bool) -> None:
    """Writes best.json, trials.csv and the figures; these only with `redraw` or where they are
    missing."""
    files.write_json(plan.folder / "best.json", _best_json(plan, study, result))
    files.write_csv(plan.folder / "trials.csv", list(_trial_rows(plan, study)))
    if redraw or not (plan.folder / "parallel.png").is_file():
        figure_inputs = (
            plan.base.variant,
            plan.space,
            plan.default,
            result.default_score,
            plan.folder,
        )
        message = plots.draw_study(study.get_trials(deepcopy=False), *figure_inputs)
        if message:
            logger.info(message)


def _best_json(plan: StudyPlan, study: Study, result: TuningResult) -> dict[str, Any]:
    adopted, best = result.adopted, result.best
    return {
        "values": result.values,
        "adopted": None if adopted is None else adopted.trial,
        "tuned_on": list(plan.folds),
        "confirmed_on": list(plan.confirm_folds),
        "errors_needed": result.errors_needed,
        "confirmed": [finalist.to_json() for finalist in result.confirmed],
        "gain": None if adopted is None else score_json(adopted.gain),
        "default": {"trial": result.default.number} | score_json(result.default_score),
        "best": {"trial": best.number}
        | score_json(result.best_score)
        | {"gain_where_chosen": score_json(result.gain), "values": best.params},
        "belongs": plan.identity,
        "study": study.study_name,
        "trials": len(ended_trials(study)),
        "epochs": plan.base.fit.epochs,
    }


def _trial_rows(plan: StudyPlan, study: Study) -> Iterator[dict[str, Any]]:
    """A row of trials.csv for each trial."""
    for trial in study.get_trials(deepcopy=False):
        yield {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "score": trial.value,
            "error": trial.user_attrs.get("error"),
            "epochs": trial.last_step,
            "seconds": f"{trial.duration.total_seconds():.1f}" if trial.duration else "",
            "fault": trial.user_attrs.get("fault"),
        } | {name: trial.params.get(name) for name in plan.space}


# ---- the result in one line


def describe_result(plan: StudyPlan, study: Study, result: TuningResult) -> str:
    """The result of the search in one line."""
    trials = f"{len(ended_trials(study))} trials on {format_folds(plan.folds)}"
    decision = _describe_decision(plan, result)
    summary = f"{plan.base.variant}: {trials}, default {result.default_score}"
    return f"{summary}; {decision}: {plan.folder / 'best.json'}"


def _describe_decision(plan: StudyPlan, result: TuningResult) -> str:
    where = format_folds(plan.confirm_folds) if plan.confirm_folds else ""
    if adopted := result.adopted:
        needed = f"({result.errors_needed:.2f} errors needed)"
        return f"trial {adopted.trial} is adopted, better by {adopted.gain} on {where} {needed}"
    if result.best.number == result.default.number:
        return "the default stands, no trial was better"
    best = f"the best, trial {result.best.number}, is better by {result.gain} where it was chosen"
    if not plan.confirm_folds:
        flags = " ".join(f"--{name} {value}" for name, value in result.best.params.items())
        reason = "since there is no other fold to confirm on"
        return f"the default stands, {reason}; {best}. By hand: {flags}"
    if not result.confirmed:
        return f"the default stands, since no finalist could be trained on {where}; {best}"
    largest = max(result.confirmed, key=lambda finalist: finalist.gain.mean)
    gain = f"{largest.gain.mean:+.4f} +- {largest.gain.error:.4f}"
    return (
        f"the default stands; of {len(result.confirmed)} confirmed, trial {largest.trial} "
        f"gains most on {where}: {gain}, not more than {result.errors_needed:.2f} errors"
    )
