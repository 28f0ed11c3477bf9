"""tuning.results."""

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
from motret.tuning.confirmation import Confirmation
from motret.tuning.study import StudyPlan, completed_trials, confirmation_key, default_trial, ended_trials, format_folds
from motret.tuning.trial import val_groups
from motret.utils import files


@dataclass(frozen=True)
class TuningResult:
    """What a study has come to: its default trial and its best one, scored on the folds it searched, and what was confirmed on others.

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
        """The confirmed trial whose values are taken; None where the default stands."""
        return confirmation.choose_adopted(self.confirmed)

    @property
    def values(self) -> dict[str, Any]:
        """The settings to take; none where the default stands."""
        return dict(self.adopted.values) if self.adopted else {}


def collect_results(search: StudyPlan, study: Study, made: Folds) -> TuningResult:
    """Compares the best trial with the default, and what was confirmed. RunError where the default has no score yet."""
    default = default_trial(search, study)
    if default is None:
        raise RunError(search.folder, "the default configuration has no score yet", "run the same command again, with more --trials")
    best = max(completed_trials(study), key=lambda trial: (trial.value, -trial.number))
    groups = val_groups(made, search.folds)
    own, other = np.array(best.user_attrs["scores"]), np.array(default.user_attrs["scores"])
    scores = (metrics.cluster_robust_mean(values, groups) for values in (other, own, own - other))
    return TuningResult(default, best, *scores, tuple(_confirmations(search, study, default, made)))


def _confirmations(search: StudyPlan, study: Study, default: FrozenTrial, made: Folds) -> Iterator[Confirmation]:
    """Every trial that was ever confirmed on all confirming folds, since each was a chance to adopt luck."""
    kept, base = study.user_attrs, None
    for trial in completed_trials(study):
        scores = [kept.get(confirmation_key(trial.number, fold), {}).get("scores") for fold in search.confirming]
        if scores and all(scores) and trial.number != default.number:
            groups = val_groups(made, search.confirming)
            base = np.concatenate([kept[confirmation_key(default.number, fold)]["scores"] for fold in search.confirming])
            own = np.concatenate(scores)
            told = (metrics.cluster_robust_mean(values, groups) for values in (own, base, own - base))
            yield Confirmation(trial.number, dict(trial.params), *told)


def write_results(search: StudyPlan, study: Study, found: TuningResult, anew: bool) -> None:
    """The results; figures only where there is something new in them."""
    adopted = found.adopted
    about = {
        "values": found.values,
        "adopted": None if adopted is None else adopted.trial,
        "tuned_on": list(search.folds),
        "confirmed_on": list(search.confirming),
        "errors_needed": _errors_needed(found),
        "confirmed": [one.about() for one in found.confirmed],
        "gain": None if adopted is None else adopted.about()["gain"],
        "default": {"trial": found.default.number, "mean": found.default_score.mean, "error": found.default_score.error},
        "best": {
            "trial": found.best.number,
            "mean": found.best_score.mean,
            "error": found.best_score.error,
            "gain_where_chosen": {"mean": found.gain.mean, "error": found.gain.error},
            "values": found.best.params,
        },
        "belongs": search.belongs,
        "study": study.study_name,
        "trials": len(ended_trials(study)),
        "epochs": search.base.fit.epochs,
    }
    files.write_json(search.folder / "best.json", about)
    files.write_csv(search.folder / "trials.csv", list(_trial_rows(search, study)))
    if anew or not (search.folder / "parallel.png").is_file():
        drawn = (search.base.variant, search.space, search.default, found.default_score, search.folder)
        told = plots.draw_study(study.get_trials(deepcopy=False), *drawn)
        if told:
            print(told)


def _errors_needed(found: TuningResult) -> float | None:
    """Standard errors that a gain had to exceed; None where nothing was confirmed."""
    confirmed = found.confirmed
    return confirmation.errors_needed(len(confirmed), confirmed[0].gain.groups) if confirmed else None


def _trial_rows(search: StudyPlan, study: Study) -> Iterator[dict[str, Any]]:
    """A line of trials.csv for each trial."""
    for trial in study.get_trials(deepcopy=False):
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        about = {"trial": trial.number, "state": trial.state.name.lower(), "score": trial.value, "error": trial.user_attrs.get("error")}
        about |= {"epochs": trial.last_step, "seconds": seconds, "fault": trial.user_attrs.get("fault")}
        yield about | {name: trial.params.get(name) for name in search.space}


def result_line(search: StudyPlan, study: Study, found: TuningResult) -> str:
    """What came of the search, in one line."""
    said = f"{search.base.variant}: {len(ended_trials(study))} trials on {format_folds(search.folds)}, default {found.default_score}"
    return f"{said}; {_decision(search, found)}: {search.folder / 'best.json'}"


def _decision(search: StudyPlan, found: TuningResult) -> str:
    there, adopted = format_folds(search.confirming) if search.confirming else "", found.adopted
    if adopted:
        return f"trial {adopted.trial} is adopted, better by {adopted.gain} on {there} ({_errors_needed(found):.2f} errors needed)"
    if found.best.number == found.default.number:
        return "the default stands, no trial was better"
    best = f"the best, trial {found.best.number}, is better by {found.gain} where it was chosen"
    if not search.confirming:
        flags = " ".join(f"--{name} {value}" for name, value in found.best.params.items())
        return f"the default stands, since there is no other fold to confirm on; {best}. By hand: {flags}"
    if not found.confirmed:
        return f"the default stands, since no finalist could be trained on {there}; {best}"
    first = max(found.confirmed, key=lambda one: one.gain.mean)
    gain = f"{first.gain.mean:+.4f} +- {first.gain.error:.4f}"
    return f"the default stands; of {len(found.confirmed)} confirmed, trial {first.trial} gains most on {there}: {gain}, " + (
        f"not more than {_errors_needed(found):.2f} errors"
    )
