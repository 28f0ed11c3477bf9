"""Per-motion scores of trials and confirmations: files beside the results, named in the study.

The study keeps only the name of a file, since a database refuses long attributes. Studies of
earlier versions hold the scores themselves, and are read as well.
"""

from pathlib import Path
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from motret.errors import RunError
from motret.tuning.study import StudyPlan, default_trial
from motret.utils import files, reading

SCORES = "scores"
"""Attribute of a trial, and key of a confirmation in the study: its file, or the scores."""
SCORES_DIR = "trials"
"""Folder of the files, in that of the results."""
SCORE_DIGITS = 5
"""Decimals of the scores."""


def save_scores(plan: StudyPlan, name: str, scores: np.ndarray) -> str:
    """Writes per-motion scores (M,) of a trial or a confirmation; returns what the study keeps.

    name: of the trial or confirmation. The file has a hash of its content in its name, so that no
    other study, which counts its trials too, replaces it.
    """
    rounded = [round(float(score), SCORE_DIGITS) for score in scores]
    file = f"{SCORES_DIR}/{name}-{files.content_hash(rounded)}.npz"
    files.write_npz(plan.folder / file, {SCORES: np.array(rounded)})
    return file


def load_scores(plan: StudyPlan, entry: Any) -> np.ndarray:
    """Per-motion scores (M,) of what the study keeps: the name of a file, or the scores.

    RunError where the file is missing or broken.
    """
    if isinstance(entry, list):
        return np.array(entry)
    path = plan.folder / SCORES_DIR / Path(str(entry)).name  # never outside the folder
    if not reading.is_file(path, RunError):
        problem = "is missing, the per-motion scores that another worker wrote"
        fix = "workers on several hosts need one --out_dir that all share; copy the file to here"
        raise RunError(path, problem, fix)
    fix = "bring it back from a copy, or begin another search in another --out_dir"
    with reading.boundary(path, "holds no scores of a trial", fix, RunError):
        return reading.read_npz(path, fix, RunError)[SCORES]


def check_shared_folder(plan: StudyPlan, study: Study) -> None:
    """RunError where this worker does not see the scores of the default configuration: better now
    than when all trials are through."""
    default = default_trial(plan, study)
    if default is not None:
        trial_scores(plan, default)


def trial_scores(plan: StudyPlan, trial: FrozenTrial) -> np.ndarray:
    """Per-motion scores (M,) of a completed trial. RunError as in `load_scores`."""
    return load_scores(plan, trial.user_attrs[SCORES])
