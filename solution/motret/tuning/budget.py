"""tuning.budget."""

import math
from datetime import datetime

import joblib
import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from motret.tuning.confirmation import FINALISTS
from motret.tuning.study import StudyPlan, completed_trials, default_trial, ended_trials
from motret.utils import files


def is_used_up(search: StudyPlan, study: Study) -> bool:
    """Whether no further trial may begin."""
    ended = ended_trials(study)
    if len(ended) + len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))) >= search.asked.trials:
        return True
    seconds = seconds_per_trial(study)
    if search.minutes is None or seconds is None:
        return False
    return seconds_spent(ended) + seconds + confirmation_seconds(search, seconds, n_finalists(search, study)) > search.minutes * 60


def seconds_per_trial(study: Study) -> float | None:
    """Seconds that a trial takes which is not ended early; None before there is one."""
    whole = [trial.duration.total_seconds() for trial in completed_trials(study)]
    return float(np.mean(whole)) if whole else None


def n_finalists(search: StudyPlan, study: Study) -> int:
    """Finalists to confirm: with a time limit no more than a third of it is time enough for, but one at least."""
    seconds = seconds_per_trial(study)
    if search.minutes is None or seconds is None:
        return FINALISTS
    fit = [count for count in range(1, FINALISTS + 1) if confirmation_seconds(search, seconds, count) <= search.minutes * 20]
    return max(fit, default=1)


def confirmation_seconds(search: StudyPlan, seconds: float, finalists: int) -> float:
    """Seconds that it takes to confirm so many finalists, where a trial takes `seconds`."""
    trainings = (finalists + 1) * len(search.confirming)
    return math.ceil(trainings / n_jobs(search, trainings)) * seconds / len(search.folds) if trainings else 0.0


def n_jobs(search: StudyPlan, tasks: int) -> int:
    """Processes for so many tasks."""
    return max(1, min(tasks, joblib.effective_n_jobs(search.asked.jobs)))


def seconds_spent(trials: list[FrozenTrial]) -> float:
    """Seconds during which at least one of these trials ran."""
    total, until = 0.0, datetime.min
    for trial in sorted(trials, key=lambda trial: trial.datetime_start):
        if trial.datetime_complete > until:
            total += (trial.datetime_complete - max(until, trial.datetime_start)).total_seconds()
            until = trial.datetime_complete
    return total


def choose_finalists(search: StudyPlan, study: Study) -> list[FrozenTrial]:
    """The trials to confirm: the best ones, each of other values, that beat the default on the folds searched."""
    default = default_trial(search, study)
    distinct: dict[str, FrozenTrial] = {}
    for trial in completed_trials(study):
        if default is not None and trial.value > default.value:
            distinct.setdefault(files.content_hash(trial.params), trial)
    return sorted(distinct.values(), key=lambda trial: (-trial.value, trial.number))[: n_finalists(search, study)]
