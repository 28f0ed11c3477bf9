"""tuning.trial."""

import functools
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from motret.config.base import build_config, flatten
from motret.config.training import TrainConfig
from motret.data import dataset
from motret.data.dataset import TrainingData
from motret.data.folds import Folds, read_folds
from motret.evaluation import metrics
from motret.runs import oof
from motret.runs.history import EpochCallback, EpochStats
from motret.runs.run import Run
from motret.training import fit as fit_module
from motret.training import train
from motret.training.context import FoldContext
from motret.tuning.budget import is_used_up
from motret.tuning.study import StudyPlan, confirmation_key, open_study, requeue_trial, trial_dir_name

SCORE_DIGITS = 5
"""Of the per-motion scores kept in the study."""


@functools.lru_cache(maxsize=1)
def load_shared_data(base: TrainConfig) -> tuple[TrainingData, Folds, Any, Any]:
    """What all trials of a process share."""
    data = dataset.load_training(base.data, base.machine.jobs, base.motion.features)
    return data, read_folds(data, base.data.folds_dir), *train.make_tower_and_context(base, data)


def run_trial(search: StudyPlan, threads: int | None = None) -> str | None:
    """Runs one trial of the study and returns a line about it; None where the search is used up. A trial that fails is recorded.

    Whatever is wrong with the default configuration is raised: there would be nothing to compare with.
    """
    if threads:
        torch.set_num_threads(threads)
    study = open_study(search)
    if is_used_up(search, study):
        return None
    load_shared_data(search.base)  # what is wrong with the data or the text tower is no trial's fault
    trial = study.ask(search.space)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    try:
        watch = functools.partial(_report_epoch, search, trial)
        values = train_folds(search, trial_dir_name(trial.number), trial.params, search.folds, watch)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"trial {trial.number}: ended early"
    except Exception as error:
        trial.set_user_attr("fault", str(error).strip().split("\n")[0] or type(error).__name__)
        if trial.params == search.default:
            requeue_trial(search, study, study.trials[trial.number])
            raise
        study.tell(trial, state=TrialState.FAIL)
        return f"trial {trial.number}: failed ({trial.user_attrs['fault']})"
    except BaseException:
        requeue_trial(search, study, study.trials[trial.number])
        raise
    score = metrics.cluster_robust_mean(values, val_groups(load_shared_data(search.base)[1], search.folds))
    trial.set_user_attr("error", score.error)
    trial.set_user_attr("scores", _rounded(values))
    study.tell(trial, score.mean)
    return f"trial {trial.number}: score {score}" + (" (the default configuration)" if trial.params == search.default else "")


def confirm_trial(search: StudyPlan, number: int, values: Mapping[str, Any], fold: int, threads: int | None = None) -> str:
    """Trains a trial's values on a confirming fold, keeps the score of each motion in the study and returns a line about it.

    A finalist that fails there is recorded as such and cannot be adopted; what is wrong with the default configuration is raised.
    """
    if threads:
        torch.set_num_threads(threads)
    study, said = open_study(search), f"confirm trial {number} on fold {fold}"
    try:
        scores = train_folds(search, f"confirm{number}-{fold}", values, (fold,))
    except Exception as error:
        if values == search.default:
            raise
        fault = str(error).strip().split("\n")[0] or type(error).__name__
        study.set_user_attr(confirmation_key(number, fold), {"fault": fault})
        return f"{said}: failed ({fault})"
    study.set_user_attr(confirmation_key(number, fold), {"scores": _rounded(scores)})
    score = metrics.cluster_robust_mean(scores, val_groups(load_shared_data(search.base)[1], (fold,)))
    return f"{said}: score {score}" + (" (the default configuration)" if values == search.default else "")


def train_folds(
    search: StudyPlan, name: str, values: Mapping[str, Any], folds: Sequence[int], watch: Callable[[int, EpochStats], None] | None = None
) -> np.ndarray:
    """Trains some folds with these values, in a folder of this name that is gone afterwards; the local score (M,) of each held-out motion.

    watch: is told of each epoch, with the place of its fold among them; what it raises ends the training.
    """
    data, made, place, tower = load_shared_data(search.base)
    config = build_config(TrainConfig, flatten(search.base) | dict(values))
    folder = search.folder / name
    run = Run(folder, config, {}, data.fingerprint, made.hash, data.store.config, data.store.persons)
    scores = []
    try:
        for number, fold in enumerate(folds):
            told: EpochCallback = functools.partial(watch or _ignore_epoch, number)
            fit_module.fit(FoldContext(run, fold, data, made, place, tower), told)
            out = oof.load_out_of_fold(run, fold)
            scores.append(metrics.caption_scores(out.similarity(), out.motion_idx))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return np.concatenate(scores)


def _ignore_epoch(place: int, line: EpochStats) -> None:
    """Shows no bar and says nothing."""


def _report_epoch(search: StudyPlan, trial: optuna.Trial, place: int, line: EpochStats) -> None:
    """Of an epoch of the trial's fold at this place among its folds."""
    trial.report(line.score, place * search.base.fit.epochs + line.epoch)
    trial.set_user_attr("heard", datetime.now().isoformat())
    if trial.params != search.default and trial.should_prune():
        raise optuna.TrialPruned


def val_groups(made: Folds, folds: Sequence[int]) -> np.ndarray:
    """Groups (M,) of the motions that some folds hold out, in the order of `train_folds`."""
    return np.concatenate([made.group[made.val_idx(fold)] for fold in folds])


def _rounded(scores: np.ndarray) -> list[float]:
    return [round(float(score), SCORE_DIGITS) for score in scores]
