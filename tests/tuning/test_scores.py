"""Per-motion scores in files of a study, and in studies of earlier versions."""

import json

import numpy as np
import optuna
import pytest

import helpers
from motret.config import scripts
from motret.data.folds import Folds
from motret.errors import RunError
from motret.tuning import scores
from motret.tuning.results import collect_results
from motret.tuning.study import StudyPlan, confirmation_key, open_study

FOLDS = Folds(np.array([0, 0, 0, 1, 1, 1]), np.array(list("abcdef")), "h", 2)
DEFAULT, OTHER = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.6, 0.5])


@pytest.fixture
def plan(tmp_path):
    """A search on one fold, confirmed on another."""
    config = scripts.TuneConfig(out_dir=tmp_path)
    space = {"lr": optuna.distributions.FloatDistribution(0, 3)}
    return StudyPlan(helpers.config(), config, space, {"lr": 1.0}, None, {}, (0,), (1,))


def fill_study(plan, keep):
    """A study of the default and a better trial, both confirmed; keep: gives what the study has of
    the scores of a trial or a confirmation."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    study = open_study(plan)
    for number, (lr, own) in enumerate(((1.0, DEFAULT), (2.0, OTHER))):
        entry = keep(str(number), own)
        study.add_trial(
            optuna.trial.create_trial(
                params={"lr": lr},
                distributions=plan.space,
                value=own.mean(),
                user_attrs={"scores": entry},
            )
        )
        confirmed = {"scores": keep(f"confirm{number}-1", own[::-1] / 2)}
        study.set_user_attr(confirmation_key(number, 1), confirmed)
    return study


def test_a_study_names_files_and_comes_to_what_one_with_the_scores_in_it_comes_to(plan, tmp_path):
    def save(name, own):
        return scores.save_scores(plan, name, own)

    found = collect_results(plan, fill_study(plan, save), FOLDS)
    assert len(list((plan.folder / "trials").glob("*.npz"))) == 4
    assert found.gain.mean == pytest.approx(0.3) and len(found.confirmed) == 1
    assert found.confirmed[0].gain.mean == pytest.approx(0.15)
    (plan.folder / "journal.log").unlink()
    of_before = collect_results(plan, fill_study(plan, lambda _, own: own.tolist()), FOLDS)
    for name in ("default_score", "best_score", "gain", "confirmed"):
        assert getattr(of_before, name) == getattr(found, name)


def test_what_a_trial_adds_to_the_study_is_small_whatever_the_number_of_motions(plan):
    plan.folder.mkdir(parents=True)
    entry = scores.save_scores(plan, "7", np.random.default_rng(0).uniform(size=100_000))
    assert len(json.dumps(entry)) < 100


def test_scores_keep_five_decimals_and_files_of_other_studies(plan):
    ours = scores.save_scores(plan, "3", np.array([0.123456789, 1.0]))
    theirs = scores.save_scores(plan, "3", np.array([0.5, 0.5]))
    assert scores.load_scores(plan, ours).tolist() == [0.12346, 1.0]
    assert scores.load_scores(plan, theirs).tolist() == [0.5, 0.5]


def test_a_worker_without_the_shared_folder_hears_so_in_one_line(plan):
    study = fill_study(plan, lambda name, own: scores.save_scores(plan, name, own))
    scores.check_shared_folder(plan, study)
    (file,) = (plan.folder / "trials").glob("0-*.npz")
    file.unlink()
    with pytest.raises(RunError) as caught:
        scores.check_shared_folder(plan, study)
    line = str(caught.value)
    assert line.startswith(f"{file}: is missing") and "one --out_dir that all share" in line
    file.write_bytes(b"half")
    with pytest.raises(RunError, match=r"no whole \.npz file"):
        collect_results(plan, study, FOLDS)
