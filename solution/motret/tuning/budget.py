"""The budget of a search: how many trials and how much time are left, and how many finalists there
is time to confirm."""

import math
from collections.abc import Sequence
from datetime import datetime

import joblib
import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from motret.tuning.confirmation import FINALISTS
from motret.tuning.study import StudyPlan, completed_trials, default_trial, ended_trials, score_of
from motret.utils import files


def is_used_up(plan: StudyPlan, study: Study) -> bool:
    """Whether no further trial may begin: trials are used up, or it would leave no time for the
    confirmation."""
    ended = ended_trials(study)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if len(ended) + len(running) >= plan.tune_config.trials:
        return True
    seconds = seconds_per_trial(study)
    if plan.max_minutes is None or seconds is None:
        return False
    confirmation = confirmation_seconds(plan, seconds, n_finalists(plan, study))
    return seconds_spent(ended) + seconds + confirmation > plan.max_minutes * 60


def seconds_per_trial(study: Study) -> float | None:
    """Mean seconds of the completed trials; None before there is one."""
    seconds = [
        trial.duration.total_seconds() for trial in completed_trials(study) if trial.duration
    ]
    return float(np.mean(seconds)) if seconds else None


def n_finalists(plan: StudyPlan, study: Study) -> int:
    """Finalists to confirm: with a time limit at least one, and as many as a third of the time
    allows."""
    seconds = seconds_per_trial(study)
    if plan.max_minutes is None or seconds is None:
        return FINALISTS
    limit = plan.max_minutes * 60 / 3
    fitting = [
        n for n in range(1, FINALISTS + 1) if confirmation_seconds(plan, seconds, n) <= limit
    ]
    return max(fitting, default=1)


def confirmation_seconds(plan: StudyPlan, seconds: float, finalists: int) -> float:
    """Seconds to confirm so many finalists, where a trial takes `seconds`."""
    trainings = (finalists + 1) * len(plan.confirm_folds)
    rounds = math.ceil(trainings / n_jobs(plan, trainings))
    return rounds * seconds / len(plan.folds) if trainings else 0.0


def n_jobs(plan: StudyPlan, tasks: int) -> int:
    """Processes for so many tasks."""
    return max(1, min(tasks, int(joblib.effective_n_jobs(plan.tune_config.jobs))))


def seconds_spent(trials: Sequence[FrozenTrial]) -> float:
    """Seconds during which at least one of these trials ran."""
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    total, until = 0.0, datetime.min
    for start, end in sorted((start, end) for start, end in spans if start and end):
        if end > until:
            total += (end - max(until, start)).total_seconds()
            until = end
    return total


def choose_finalists(plan: StudyPlan, study: Study) -> list[FrozenTrial]:
    """The trials to confirm: the best ones, each with other values, that beat the default on the
    folds of the search."""
    default = default_trial(plan, study)
    distinct: dict[str, FrozenTrial] = {}
    for trial in completed_trials(study):
        if default is not None and score_of(trial) > score_of(default):
            distinct.setdefault(files.content_hash(trial.params), trial)
    best_first = sorted(distinct.values(), key=lambda trial: (-score_of(trial), trial.number))
    return best_first[: n_finalists(plan, study)]
