"""tune.py by its command line on a small generated challenge: what it leaves, that it repeats
itself, several workers, killed ones."""

import csv
import errno
import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import helpers
import train
import tune
from motret.config import base, cli, presets, scripts
from motret.data.folds import Folds
from motret.errors import ConfigError
from motret.evaluation import metrics
from motret.runs import oof
from motret.runs.history import EpochStats
from motret.runs.run import list_runs
from motret.training import fit
from motret.tuning import budget, confirmation, plots, search_space, storage, tuned_values
from motret.tuning import study as study_module
from motret.tuning import trial as trial_module
from motret.tuning import tune as tune_module
from motret.tuning.results import collect_results
from motret.tuning.study import N_STARTUP_TRIALS, StudyPlan, confirmation_key, is_stale
from motret.tuning.trial import _report_epoch, load_shared_data
from motret.utils.system_errors import write_error

ROOT = Path(__file__).parents[2]
RESULTS = {"best.json", "history.png", "journal.log", "parallel.png", "trials", "trials.csv"}
"""Of few trials, which say nothing about the importance of a setting."""


def tune_flags(out_dir, **values):
    """Flags of tiny trials; their warm-up never ends, since a collapse after it, which a drawn rate
    may bring, would fail them."""
    sizes = helpers.SMALL | helpers.SCRATCH | {"epochs": 3, "warmup_epochs": 3} | values
    small = {name: value for name, value in sizes.items() if name not in ("device", "jobs")}
    jobs = {"jobs": values.get("jobs", 1)}
    places = [flag for flag in helpers.places() if not flag.startswith("--jobs")]
    return ["holistic", *places, *helpers.flags(**{"out_dir": out_dir, "folds": 2} | small, **jobs)]


def run_tune(out_dir, **values):
    return tune.main(tune_flags(out_dir, **values))


def best(out_dir):
    return json.loads((out_dir / "tune" / "holistic" / "best.json").read_text())


def table(out_dir):
    with (out_dir / "tune" / "holistic" / "trials.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def default_of(row):
    return {
        name: row[name] for name in ("tau", "learn_tau", "token_drop", "label_smoothing", "patch")
    } == {
        "tau": "0.07",
        "learn_tau": "True",
        "token_drop": "0.5",
        "label_smoothing": "0.0",
        "patch": "6",
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Three trials by one worker."""
    out_dir = tmp_path_factory.mktemp("searched")
    assert run_tune(out_dir, trials=3) == 0
    return out_dir


# ---- what it leaves


def test_a_search_leaves_its_results_and_nothing_of_its_trials(searched):
    assert {path.name for path in (searched / "tune" / "holistic").iterdir()} == RESULTS
    rows = table(searched)
    assert [row["trial"] for row in rows] == [str(number) for number in range(3)]
    assert default_of(rows[0]) and not any(default_of(row) for row in rows[1:])
    assert rows[0]["state"] == "complete" and {row["state"] for row in rows} <= {
        "complete",
        "pruned",
    }
    assert len({row["lr"] for row in rows}) == 3
    assert list_runs(searched) == []


def test_what_is_kept_names_the_folds_that_were_tuned_on_and_those_that_confirmed(searched):
    content, scores = (
        best(searched),
        [float(row["score"]) for row in table(searched) if row["state"] == "complete"],
    )
    assert content["best"]["mean"] == pytest.approx(max(scores), abs=1e-5) and content["default"][
        "mean"
    ] == pytest.approx(scores[0], abs=1e-5)
    assert content["best"]["gain_where_chosen"]["mean"] >= 0 and content["trials"] == 3
    assert content["tuned_on"] == [0] and content["confirmed_on"] == [1]
    assert len(content["confirmed"]) <= sum(score > scores[0] for score in scores)
    passed = [
        one["trial"]
        for one in content["confirmed"]
        if one["gain"]["mean"] > content["errors_needed"] * one["gain"]["error"]
    ]
    assert bool(passed) == bool(content["values"]) and (
        content["adopted"] in passed or content["adopted"] is None
    )


def test_one_worker_with_the_same_seed_makes_the_same_trials_broken_off_or_not(searched, tmp_path):
    assert run_tune(tmp_path, trials=1) == 0
    assert run_tune(tmp_path, trials=3) == 0
    assert without_times(table(tmp_path)) == without_times(table(searched))
    assert best(tmp_path) == best(searched)


def test_the_same_command_again_does_nothing_more(searched, monkeypatch):
    file = searched / "tune" / "holistic" / "best.json"
    before, drawn = file.read_bytes(), (file.parent / "history.png").stat().st_mtime_ns
    monkeypatch.setattr(fit, "fit", None)
    assert run_tune(searched, trials=3) == 0
    assert file.read_bytes() == before and (file.parent / "history.png").stat().st_mtime_ns == drawn


# ---- what it finds, with trials that only pretend to train


def pretend(monkeypatch, score_of):
    """Trainings whose per-motion scores are `score_of(params, motions)`; lists (folder, folds) of
    each."""
    trained = []

    def train_folds(plan, name, values, folds, watch=None):
        _, all_folds, *_ = load_shared_data(plan.base)
        trained.append((name, tuple(folds)))
        return score_of(values, sum(len(all_folds.val_idx(fold)) for fold in folds))

    monkeypatch.setattr(trial_module, "train_folds", train_folds)
    monkeypatch.setattr(plots, "draw_study", lambda *content: None)
    return trained


def test_what_is_drawn_follows_from_the_seed_and_what_was_found(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda params, motions: np.linspace(0, params["lr"] * 100, motions))
    for name, seed, trials in (("one", 0, 9), ("two", 0, 4), ("two", 0, 9), ("three", 1, 9)):
        assert run_tune(tmp_path / name, trials=trials, seed=seed) == 0
    one, two, three = (without_times(table(tmp_path / name)) for name in ("one", "two", "three"))
    assert one == two and one[0] == three[0] and one[1]["lr"] != three[1]["lr"]
    pretend(monkeypatch, lambda params, motions: np.linspace(0, params["patch"], motions))
    assert run_tune(tmp_path / "four", trials=9, seed=0) == 0
    four = table(tmp_path / "four")
    drawn = [[row["lr"] for row in rows] for rows in (one, four)]
    assert (
        drawn[0][:N_STARTUP_TRIALS] == drawn[1][:N_STARTUP_TRIALS] and drawn[0][-1] != drawn[1][-1]
    )


def test_the_gain_is_paired_and_its_error_counts_groups():
    made = Folds(np.array([0, 1, 0, 0, 1, 0]), np.array(["a", "x", "a", "b", "y", "c"]), "h", 2)
    default, other = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.2, 0.3, 0.5, 0.8])
    study = optuna.create_study(direction="maximize")
    for params, scores in (({"lr": 1.0}, default), ({"lr": 2.0}, other)):
        space = {"lr": optuna.distributions.FloatDistribution(0.5, 3)}
        attributes = {"scores": scores.tolist()}
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=space, value=scores.mean(), user_attrs=attributes
            )
        )
    plan = StudyPlan(helpers.config(), scripts.TuneConfig(), {}, {"lr": 1.0}, None, {}, (0,))
    gain = collect_results(plan, study, made).gain
    by_group = [(other - default)[:2].sum(), (other - default)[2], (other - default)[3]]
    mean = (other - default).mean()
    sums = np.array([by_group[0] - 2 * mean, by_group[1] - mean, by_group[2] - mean])
    clustered = np.sqrt(3 / 2 * (sums**2).sum()) / 4
    assert gain.mean == pytest.approx(0.075) and gain.error == pytest.approx(
        max(clustered, (other - default).std(ddof=1) / 2)
    )


def test_a_truly_better_trial_is_confirmed_on_other_folds_and_adopted(
    tmp_path, monkeypatch, capsys
):
    noise = np.random.default_rng(0)
    trained = pretend(
        monkeypatch,
        lambda params, motions: 0.5 + 0.2 * (params["patch"] != 6) + noise.normal(0, 0.05, motions),
    )
    assert run_tune(tmp_path, trials=6) == 0
    content, message = best(tmp_path), capsys.readouterr().out
    assert content["values"]["patch"] != 6 and content["adopted"] in [
        one["trial"] for one in content["confirmed"]
    ]
    assert 0.1 < content["gain"]["mean"] < 0.3 and content["errors_needed"] >= 2
    assert {folds for name, folds in trained if name.startswith("trial")} == {(0,)}
    confirming = [name for name, folds in trained if folds == (1,)]
    assert sorted(confirming) == sorted(
        {f"confirm{number}-1" for number in (0, *(one["trial"] for one in content["confirmed"]))}
    )
    assert "holistic: tuned on fold 0, the best confirmed on fold 1" in message
    assert f"trial {content['adopted']} is adopted, better by" in message and "on fold 1" in message


def test_a_trial_that_was_lucky_where_it_was_chosen_is_not_adopted(tmp_path, monkeypatch, capsys):
    def lucky(params, motions):
        return np.linspace(0.4, 0.6, motions) + 0.3 * (
            trained[-1][1] == (0,) and params["patch"] != 6
        )

    trained = pretend(monkeypatch, lucky)
    assert run_tune(tmp_path, trials=6) == 0
    content = best(tmp_path)
    assert (
        content["best"]["gain_where_chosen"]["mean"] == pytest.approx(0.3) and content["confirmed"]
    )
    assert (
        content["values"] == {}
        and content["adopted"] is None
        and "the default stands" in capsys.readouterr().out
    )


def test_confirmation_goes_on_where_it_was_stopped_and_more_trials_are_further_tries(
    tmp_path, monkeypatch
):
    stopped = []

    def score_of(params, motions):
        if (
            not stopped and len(trained) == 8
        ):  # six trials, the default on the confirming fold, and now a finalist
            stopped.append(trained.pop())
            raise KeyboardInterrupt
        return np.linspace(0.4, 0.6, motions) + params["lr"]

    trained = pretend(monkeypatch, score_of)
    assert run_tune(tmp_path, trials=6) == 130
    assert run_tune(tmp_path, trials=6) == 0
    first = best(tmp_path)
    assert stopped and len(trained) == len(set(trained)) == 6 + 1 + len(first["confirmed"])
    assert run_tune(tmp_path, trials=16) == 0
    second = best(tmp_path)
    assert len(trained) == len(set(trained)) == 16 + 1 + len(second["confirmed"])
    assert (
        len(second["confirmed"]) > len(first["confirmed"])
        and second["errors_needed"] > first["errors_needed"]
    )


def test_a_finalist_that_fails_on_a_confirming_fold_cannot_be_adopted(
    tmp_path, monkeypatch, capsys
):
    def score_of(params, motions):
        if params["patch"] != 6 and trained[-1][1] == (1,):
            raise RuntimeError("the loss is nan")
        return np.full(motions, 0.5 + 0.1 * (params["patch"] != 6))

    trained = pretend(monkeypatch, score_of)
    assert run_tune(tmp_path, trials=6) == 0
    message = capsys.readouterr().out
    assert (
        "on fold 1: failed (the loss is nan)" in message
        and "no finalist could be trained" in message
        and best(tmp_path)["values"] == {}
    )


def test_with_one_fold_in_all_nothing_is_confirmed_and_the_default_stands(
    tmp_path, monkeypatch, capsys
):
    data = Path(shutil.copytree(helpers.challenge(), tmp_path / "data"))
    names = sorted(path.stem for path in (data / "motions").glob("*.npy"))
    (data / "train.txt").write_text("\n".join(names[:18]) + "\n")
    (data / "val.txt").write_text("\n".join(names[18:]) + "\n")
    pretend(
        monkeypatch, lambda params, motions: np.full(motions, 0.5 + 0.1 * (params["patch"] != 6))
    )
    places = {"data_dir": data, "work_dir": tmp_path / "work", "folds_dir": tmp_path / "folds"}
    assert run_tune(tmp_path, trials=5, prefer_txt_split=True, **places) == 0
    message, content = capsys.readouterr().out, best(tmp_path)
    assert (
        content["values"] == {} and content["confirmed_on"] == [] and content["best"]["trial"] != 0
    )
    assert (
        "no other fold to confirm on" in message
        and f"By hand: --tau {content['best']['values']['tau']}" in message
    )


def test_folds_that_leave_none_to_confirm_on_are_refused(tmp_path, capsys):
    assert run_tune(tmp_path, trials=1, tune_folds=2) == 1
    assert (
        "--tune_folds: is 2 of 2 folds, which leaves none to confirm the best trials on "
        "(give at most 1)" in capsys.readouterr().err
    )


# ---- the rule


def study_of(plan, made, rng, trials, better=0.0):
    """A study of trials whose scores vary as those of real ones: by motion, by group, by trial;
    `better` is what trial 1 gains."""
    hard, seed = rng.uniform(0, 1, len(made.fold)), int(rng.integers(2**31))
    groups = np.unique(made.group, return_inverse=True)[1]

    def scores(number, fold):
        own, rows = np.random.default_rng([seed, number, fold]), made.val_idx(fold)
        noise = own.normal(0, 0.25, len(rows)) + own.normal(0, 0.1, groups.max() + 1)[groups[rows]]
        return np.clip(hard[rows] + noise + better * (number == 1), 0, 1)

    study = optuna.create_study(direction="maximize")
    space = {"lr": optuna.distributions.FloatDistribution(0, 1000)}
    for number in range(trials):
        own = scores(number, 0)
        content = {
            "params": {"lr": float(number)},
            "distributions": space,
            "user_attrs": {"scores": own.tolist()},
        }
        study.add_trial(optuna.trial.create_trial(value=own.mean(), **content))
    for trial in [study.trials[0], *budget.choose_finalists(plan, study)]:
        for fold in plan.confirm_folds:
            study.set_user_attr(
                confirmation_key(trial.number, fold),
                {"scores": scores(trial.number, fold).tolist()},
            )
    return study


@pytest.fixture
def rule():
    """A search on fold 0 of three, confirmed on the others; groups of two motions."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fold = np.arange(360) % 3
    made = Folds(
        fold, np.array([f"{which}-{number // 6}" for number, which in enumerate(fold)]), "h", 3
    )
    return StudyPlan(
        helpers.config(), scripts.TuneConfig(), {}, {"lr": 0.0}, None, {}, (0,), (1, 2)
    ), made


@pytest.mark.parametrize("trials", [20, 30])
def test_with_no_trial_truly_better_at_most_one_study_in_20_adopts(rule, trials):
    plan, made = rule
    rng = np.random.default_rng(trials)
    found = [collect_results(plan, study_of(plan, made, rng, trials), made) for _ in range(200)]
    assert sum(one.adopted is not None for one in found) <= 10
    assert (
        sum(one.gain.mean > one.gain.error for one in found) > 100
    )  # where it was chosen the best looks better


def test_a_trial_that_is_truly_better_is_adopted(rule):
    plan, made = rule
    rng = np.random.default_rng(0)
    found = [
        collect_results(plan, study_of(plan, made, rng, 20, better=0.12), made).adopted
        for _ in range(40)
    ]
    assert sum(one is not None and one.trial == 1 for one in found) >= 36


def test_the_errors_needed_grow_with_the_tries_and_for_few_groups():
    needed = confirmation.errors_needed
    assert needed(1, 10**6) == 2 and needed(3, 10**6) == pytest.approx(2.128, abs=1e-3)
    assert (
        needed(1, 10**6) < needed(3, 10**6) < needed(10, 10**6)
        and needed(3, 6) > needed(3, 60)
        and needed(3, 1) == np.inf
    )


def test_a_setting_that_a_flag_gives_is_not_searched(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda params, motions: np.full(motions, 0.5))
    assert run_tune(tmp_path, trials=2, tau=0.1, patch=12) == 0
    rows = table(tmp_path)
    assert not {"tau", "patch"} & rows[0].keys() and "lr" in rows[0]


def test_a_trial_that_fails_is_recorded_and_passed_over(tmp_path, monkeypatch, capsys):
    def score_of(params, motions):
        if params["patch"] != 6:
            raise RuntimeError("the sky fell\non us")
        return np.full(motions, 0.5)

    pretend(monkeypatch, score_of)
    assert run_tune(tmp_path, trials=5) == 0
    rows = table(tmp_path)
    failed = [row for row in rows if row["patch"] != "6"]
    assert (
        failed
        and len(rows) == 5
        and all(row["state"] == "fail" and row["fault"] == "the sky fell" for row in failed)
    )
    assert "failed (the sky fell)" in capsys.readouterr().out


def test_what_is_wrong_with_the_default_configuration_stops_the_search_and_may_be_mended(
    tmp_path, capsys, monkeypatch
):
    wild = {"lr": 1e30, "grad_clip": 0, "warmup_epochs": 0}
    assert run_tune(tmp_path, trials=2, **wild) == 1
    assert (
        "the loss is nan" in capsys.readouterr().err
        and not (tmp_path / "tune" / "holistic" / "best.json").exists()
    )


def test_the_default_configuration_is_tried_again_after_it_failed(tmp_path, monkeypatch):
    def out_of_luck(params, motions):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        pretend(patched, out_of_luck)
        with pytest.raises(OSError, match="disk full"):
            run_tune(tmp_path, trials=3)
    pretend(monkeypatch, lambda params, motions: np.full(motions, 0.5))
    assert run_tune(tmp_path, trials=3) == 0
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == [
        "fail",
        "complete",
        "complete",
        "complete",
    ] and default_of(rows[1])


# ---- time


def trial_of(begin, end, state=TrialState.COMPLETE):
    start = datetime(2026, 1, 1)
    made = optuna.trial.create_trial(
        value=0.5 if state == TrialState.COMPLETE else None, state=state
    )
    made.datetime_start, made.datetime_complete = (
        start + timedelta(seconds=begin),
        start + timedelta(seconds=end),
    )
    return made


def test_time_counts_once_where_trials_ran_side_by_side():
    assert budget.seconds_spent([]) == 0
    assert (
        budget.seconds_spent([trial_of(0, 10), trial_of(5, 12), trial_of(6, 8), trial_of(100, 101)])
        == 13
    )


@pytest.mark.parametrize(("minutes", "more"), [(None, True), (0.5, True), (0.4, False)])
def test_no_trial_begins_that_would_not_fit(minutes, more):
    study = optuna.create_study(direction="maximize")
    for trial in (trial_of(0, 12), trial_of(12, 14, TrialState.PRUNED)):
        study.add_trial(trial)
    plan = StudyPlan(helpers.config(), scripts.TuneConfig(trials=9), {}, {}, minutes, {}, (0,))
    assert budget.is_used_up(plan, study) is not more  # 14 s are spent, and a whole trial takes 12


@pytest.mark.parametrize(
    ("minutes", "finalists"), [(None, 3), (2.5, 3), (2.3, 2), (1.7, 1), (0.1, 1)]
)
def test_with_a_time_limit_no_more_finalists_are_confirmed_than_a_third_of_it_allows(
    minutes, finalists
):
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial_of(0, 12))
    plan = StudyPlan(
        helpers.config(), scripts.TuneConfig(trials=9), {}, {}, minutes, {}, (0, 1), (2, 3)
    )
    assert (
        budget.n_finalists(plan, study) == finalists
    )  # each, like the default, takes 2 folds of 6 s: 48 s for three


@pytest.mark.parametrize(("minutes", "more"), [(0.81, True), (0.79, False)])
def test_time_for_the_confirmation_is_kept_free(minutes, more):
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial_of(0, 12))
    plan = StudyPlan(
        helpers.config(), scripts.TuneConfig(trials=9), {}, {}, minutes, {}, (0, 1), (2, 3)
    )
    assert (
        budget.is_used_up(plan, study) is not more
    )  # 12 s are spent, a trial takes 12, and confirming one finalist 24


# ---- pictures


def test_pictures_have_titles_and_importance_takes_ten_finished_trials(tmp_path):
    space = {name: optuna.distributions.FloatDistribution(0, 30) for name in ("lr", "tau")}
    trials = []
    for number in range(10):
        own = {
            "params": {"lr": float(number), "tau": float(number % 3)},
            "distributions": space,
            "value": number / 10,
        }
        trials.append(optuna.trial.create_trial(**own))
        trials[-1].number = number
    args = ("holistic", space, {"lr": 0.0, "tau": 0.0}, metrics.Score(0.3, 0.1, 9, 9), tmp_path)
    message = plots.draw_study(trials[:9], *args)
    assert (
        message == f"{tmp_path / 'importance.png'} is not drawn: "
        "9 finished trials are too few for it, it takes 10"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"history.png", "parallel.png"}
    assert plots.draw_study(trials, *args) is None and (tmp_path / "importance.png").is_file()
    drawn = [
        plots.plot_history(trials, "holistic", args[3]),
        plots.plot_importance(trials, "holistic", space),
        plots.plot_parallel(trials, "holistic", space, args[2]),
    ]
    assert all(figure.axes[0].get_title().startswith("holistic: ") for figure in drawn)


# ---- trials that end early


class Reporter:
    """Stands in for a trial: notes reports, and would end at once."""

    def __init__(self, params):
        self.params, self.reports, self.said = params, [], {}

    def report(self, value, step):
        self.reports.append((value, step))

    def set_user_attr(self, name, value):
        self.said[name] = value

    def should_prune(self):
        return True


def test_epochs_are_reported_over_the_folds_and_the_default_is_never_ended_early():
    plan = StudyPlan(
        helpers.config(epochs=4), scripts.TuneConfig(), {}, {"lr": 1.0}, None, {}, (0, 1)
    )
    line = EpochStats(3, 1.0, 1e-3, 0.07, 1.0, score=0.6)
    default, other = Reporter({"lr": 1.0}), Reporter({"lr": 2.0})
    _report_epoch(plan, default, 1, line)
    assert (
        default.reports == [(0.6, 7)]
        and datetime.fromisoformat(default.said["heard"]) <= datetime.now()
    )
    with pytest.raises(optuna.TrialPruned):
        _report_epoch(plan, other, 0, line)
    assert other.reports == [(0.6, 3)]


@pytest.mark.parametrize(
    ("pruner", "ends"), [("median", True), ("hyperband", True), ("none", False)]
)
def test_a_pruner_ends_trials_that_fall_behind(tmp_path, monkeypatch, pruner, ends):
    def fit_of_falling_scores(fold_context, watch):
        run, fold = fold_context.run, fold_context.fold
        for epoch in range(1, run.config.fit.epochs + 1):
            worse = int(re.search(r"\d+", run.folder.name)[0]) / 100
            watch(EpochStats(epoch, 1.0, 1e-3, 0.07, 1.0, score=0.9 - worse))
        held = fold_context.val_idx
        same = np.ones((len(held), 1), dtype=np.float32)
        oof.save_out_of_fold(
            run.fold_dir(fold) / "oof.npz",
            oof.OutOfFold(held.astype(str), held, same, same, np.arange(len(held))),
        )

    monkeypatch.setattr(fit, "fit", fit_of_falling_scores)
    monkeypatch.setattr(plots, "draw_study", lambda *content: None)
    three = {"folds": 3, "folds_dir": tmp_path / "folds"}
    assert run_tune(tmp_path, trials=9, pruner=pruner, tune_folds=2, epochs=4, **three) == 0
    rows = table(tmp_path)
    assert ("pruned" in {row["state"] for row in rows}) == ends and rows[0]["state"] == "complete"
    assert best(tmp_path)["tuned_on"] == [0, 1] and all(
        int(row["epochs"]) == 8 for row in rows if row["state"] == "complete"
    )


# ---- several workers


def test_workers_side_by_side_share_out_the_trials(tmp_path, capfd):
    assert run_tune(tmp_path, trials=4, jobs=2, epochs=1) == 0
    rows = table(tmp_path)
    message = [
        line.split(":")[0]
        for line in capfd.readouterr().out.splitlines()
        if line.startswith("trial ")
    ]
    assert sorted(message) == [f"trial {number}" for number in range(4)]
    assert len(rows) == 4 == len({row["lr"] for row in rows}) and default_of(rows[0])


def test_a_killed_worker_leaves_the_study_to_the_others_and_its_trial_is_run_again(tmp_path):
    flags = tune_flags(tmp_path, trials=3, epochs=1, motion_tower="helpers:WaitingTower")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    surroundings = os.environ | {
        helpers.PIPE: str(pipe),
        "PYTHONPATH": str(ROOT / "tests"),
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(
        [sys.executable, str(ROOT / "solution" / "tune.py"), *flags], env=surroundings
    ) as worker:
        try:
            assert select.select([reading], [], [], 120)[0], (
                "the worker has not come to its second trial"
            )
            assert (
                tune.main(flags) == 0
            )  # another worker, while the first one is at its second trial
            assert [row["state"] for row in table(tmp_path)] == ["complete", "running", "complete"]
        finally:
            worker.kill()
            os.close(reading)
    assert tune.main(flags) == 0
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    config = [name for name in rows[0] if name in search_space.SHARED]
    assert (
        [rows[3][name] for name in config]
        == [rows[1][name] for name in config]
        != [rows[2][name] for name in config]
    )
    assert {path.name for path in (tmp_path / "tune" / "holistic").iterdir()} == RESULTS
    assert best(tmp_path)["trials"] == 3


def test_a_trial_is_lost_with_its_process_and_elsewhere_when_nothing_is_heard_of_it():
    def lost(worker, began, heard=None):
        """Of a trial that began, and was last heard of, so many hours ago."""
        now = datetime.now()
        said = {"worker": worker} | (
            {} if heard is None else {"heard": (now - timedelta(hours=heard)).isoformat()}
        )
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING, user_attrs=said, params={}, distributions={}
        )
        trial.datetime_start = now - timedelta(hours=began)
        return is_stale(trial)

    here, host = study_module.worker_name(), socket.gethostname()
    assert not lost(f"{host}:{os.getpid()}", began=1)  # as earlier versions wrote it
    again = re.sub(r"\d+$", "7", here)
    assert lost(again, began=0)  # the same number, given to another process
    assert not lost(here, began=30) and not lost(here, began=-30)  # whatever the clocks say
    assert (
        not lost(here, began=1)
        and not lost("elsewhere:1", began=1)
        and not lost("elsewhere:1", began=30, heard=1)
    )
    assert lost(f"{socket.gethostname()}:{2**22 + 1}", began=0) and lost(
        "elsewhere:1", began=30, heard=13
    )
    assert lost("elsewhere:1", began=13)
    assert lost("", began=1) and not lost("", began=0.1)  # a worker names itself at once


def test_a_trial_is_lost_with_its_machine_that_was_started_again(monkeypatch):
    """The token of its process is then that of another host under the same name."""
    began = datetime.now() - timedelta(minutes=5)
    monkeypatch.setattr(study_module, "host_start", lambda: began)
    worker = {"worker": f"{socket.gethostname()}:{'0' * 8}-1-1"}
    for minutes, is_lost in ((6, True), (4, False)):
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING, user_attrs=worker, params={}, distributions={}
        )
        trial.datetime_start = datetime.now() - timedelta(minutes=minutes)
        assert is_stale(trial) is is_lost


def test_a_search_that_is_killed_and_started_under_the_same_process_number_goes_on(
    searched, tmp_path, monkeypatch
):
    """As in a container, where every process that starts it has the same number."""

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    for number in (0, 1):  # the default configuration, then another trial
        with monkeypatch.context() as broken:
            token = re.sub(r"\d+$", str(number), study_module.process_token())
            name = f"{socket.gethostname()}:{token}"
            broken.setattr(trial_module, "worker_name", lambda name=name: name)
            broken.setattr(trial_module, "train_folds", die)
            broken.setattr(trial_module, "requeue_trial", die)  # it has no time for it
            broken.setattr(optuna.Study, "tell", die)
            with pytest.raises(Killed):
                run_tune(tmp_path, trials=3)
        assert run_tune(tmp_path, trials=number + 1) == 0
    assert run_tune(tmp_path, trials=3) == 0
    complete, unbroken = (
        [row | {"trial": ""} for row in without_times(table(folder)) if row["state"] != "fail"]
        for folder in (tmp_path, searched)
    )
    assert complete == unbroken


@pytest.mark.parametrize("number", [0, 1])
def test_a_full_disk_is_no_fault_of_a_trial(searched, tmp_path, monkeypatch, capsys, number):
    """It stops the search, which then makes the same trials."""
    save = fit.checkpoints.save_checkpoint

    def refuse(path, content):
        if f"trial{number}" in str(path):
            raise write_error(path, OSError(errno.ENOSPC, "No space left on device"))
        save(path, content)

    with monkeypatch.context() as full:
        full.setattr(fit.checkpoints, "save_checkpoint", refuse)
        assert run_tune(tmp_path, trials=3) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and "no space is left on its disk" in message
    assert run_tune(tmp_path, trials=3) == 0
    complete, unbroken = (
        [row | {"trial": ""} for row in without_times(table(folder)) if row["state"] != "fail"]
        for folder in (tmp_path, searched)
    )
    assert complete == unbroken


def test_a_journal_that_nobody_can_read_is_one_line(searched, tmp_path, capsys):
    shutil.copytree(searched / "tune", tmp_path / "tune")
    journal = tmp_path / "tune" / "holistic" / "journal.log"
    journal.write_bytes(b"years of work\n" + journal.read_bytes())
    assert run_tune(tmp_path, trials=3) == 1
    assert "journal.log: line 1 cannot be read (move it away" in capsys.readouterr().err
    journal.write_bytes(b'{"op_code":4,"worker_id":"a"}\n')
    assert run_tune(tmp_path, trials=3) == 1
    assert "journal.log: cannot be read (" in capsys.readouterr().err


def test_a_study_may_be_kept_in_a_data_base(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda params, motions: np.full(motions, 0.5))
    assert run_tune(tmp_path, trials=2, storage=f"sqlite:///{tmp_path}/study.db") == 0
    assert (tmp_path / "study.db").is_file() and not (
        tmp_path / "tune" / "holistic" / "journal.log"
    ).exists()
    assert len(table(tmp_path)) == 2


def test_a_database_knows_a_dead_worker_by_its_heartbeat_and_its_trial_runs_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    space = {"lr": optuna.distributions.FloatDistribution(0.5, 3)}
    config = scripts.TuneConfig(storage=f"sqlite:///{tmp_path}/study.db", out_dir=tmp_path)
    plan = StudyPlan(helpers.config(), config, space, {"lr": 1.0}, None, {}, (0,))
    study = study_module.open_study(plan)
    for _ in range(2):  # the default configuration, then another trial
        dead = study.ask(space)
        study._storage.record_heartbeat(dead._trial_id)
    study_module.requeue_stale_trials(plan, study)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] * 2
    time.sleep(2.5)
    study_module.requeue_stale_trials(plan, study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2 + [
        TrialState.WAITING
    ] * 2
    again = [study.ask(space).params for _ in range(2)]
    assert again == [{"lr": 1.0}, dead.params]


def test_a_storage_that_cannot_be_had_is_a_fault_of_its_flag(tmp_path, capsys):
    assert run_tune(tmp_path, trials=1, storage="nosuchbase://here/study") == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: --storage: nosuchbase://here/study cannot be opened")


# ---- the command line


def test_flags_of_training_go_through_and_the_preset_gives_the_rest(monkeypatch):
    tune_config, flags = cli.parse_tune(
        [
            "sgar",
            "holistic",
            "--preset",
            "fast",
            "--lr",
            "3e-4",
            "--max-minutes=2",
            "--no_learn_tau",
        ],
        None,
    )
    assert tune_config.variants == ("sgar", "holistic") and tune_config.max_minutes == 2
    assert tune_config.trials == presets.PRESETS["fast"].tuning["trials"]
    config, sources = cli.train_settings({"variant": "sgar"} | flags)
    assert (config.preset, config.optim.lr, config.loss.learn_tau, config.fit.max_minutes) == (
        "fast",
        3e-4,
        False,
        None,
    )
    assert {name for name, source in sources.items() if source == "flag"} == {
        "preset",
        "lr",
        "learn_tau",
    }


def test_without_a_name_every_variant_of_the_preset_is_tuned(monkeypatch, capsys):
    tuned_variants = []
    monkeypatch.setitem(
        presets.PRESETS,
        "fast",
        presets.Preset(("sgar", "holistic"), presets.PRESETS["fast"].values, {}),
    )
    monkeypatch.setattr(
        tune_module,
        "tune",
        lambda config, sources, tune_config, time_fraction: (
            tuned_variants.append((config.variant, time_fraction)) or "done"
        ),
    )
    assert tune.main(["--preset", "fast"]) == 0
    assert tuned_variants == [("sgar", 0.5), ("holistic", 0.5)]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["holistc"], "tune.py: no variant is called 'holistc'"),
        (["--trials", "0"], "--trials: is 0"),
        (["--jobs=0"], "--jobs: 0 processes do nothing"),
        (["--max_minutes=0"], "--max_minutes: is 0"),
        (["--heads=3"], "--heads: 3 heads do not divide"),
    ],
)
def test_what_cannot_be_searched_is_one_line(flags, said, capsys):
    assert tune.main(flags) == 1
    assert capsys.readouterr().err.startswith(f"error: {said}")


# ---- the search space


@pytest.mark.parametrize("preset", [*presets.PRESETS])
@pytest.mark.parametrize("variant", [*presets.VARIANTS])
def test_every_setting_of_the_table_exists_and_its_default_lies_inside(variant, preset):
    config, _ = cli.parse_train([variant, "--preset", preset], None)
    known, given = search_space.SPACES.get(variant, search_space.SHARED), base.flatten(config)
    assert known.keys() <= given.keys()
    for name, item in known.items():
        assert item.around(given[name]) == item, name
    space, default = search_space.space_of(config)
    assert default == {name: given[name] for name in space}
    assert {"tau", "learn_tau", "lr", "label_smoothing"} <= space.keys()


def test_some_settings_alone_are_searched_where_they_are_named():
    config = cli.parse_train(["holistic", "--preset", "fast"], None)[0]
    space, default = search_space.space_of(config, fixed={"lr"}, only=("tau", "lr"))
    assert space.keys() == default.keys() == {"tau"}
    with pytest.raises(
        ConfigError, match="'taux' is not among what is searched for holistic \\(choose from tau, "
    ):
        search_space.space_of(config, only=("taux",))


def test_the_fast_preset_searches_temperature_and_learning_rates():
    tune_config, flags = cli.parse_tune(["holistic", "--preset", "fast"], None)
    assert (
        tune_config.search == "tau,lr,head_lr_mult"
        and tune_config.trials >= 8
        and flags == {"preset": "fast"}
    )


def test_what_means_nothing_to_a_configuration_is_not_searched():
    def names(*flags, variant="holistic"):
        return search_space.space_of(cli.parse_train([variant, *flags], None)[0])[0].keys()

    assert "negative_threshold" in names() and "text_lr_mult" not in names()
    assert not {"negative_threshold", "text_lr_mult"} & names("--text_weights", "none")
    assert (
        "lambda_mix" in names(variant="sgar")
        and "lambda_mix" not in names()
        and "lambda_mix" not in names("--no_use_gar", variant="sgar")
    )


def test_the_rate_of_published_motion_weights_is_searched_where_there_are_some():
    def names(*flags):
        return search_space.space_of(cli.parse_train(["holistic", *flags], None)[0])[0].keys()

    assert "backbone_lr_mult" not in names() and "backbone_lr_mult" in names(
        "--backbone_weights", "mdm.pt"
    )
    assert "backbone_lr_mult" not in names("--backbone_weights", "mdm.pt", "--freeze_backbone")


def test_a_model_of_ones_own_is_searched_by_the_shared_table_around_its_own_values(monkeypatch):
    monkeypatch.setitem(presets.VARIANTS, "mine", {"lr": 0.05, "patch": 5})
    space, default = search_space.space_of(
        cli.parse_train(["mine", "--text_weights", "none"], None)[0]
    )
    assert default["lr"] == space["lr"].high == 0.05 and 5 in space["patch"].choices


# ---- train.py --tuned


@pytest.fixture
def results(tmp_path):
    """A best.json for the tiny challenge, and a way to change it."""
    made = Path(f"{helpers.challenge()}-folds")
    if not (made / "folds.json").is_file():
        config, sources = cli.parse_train(helpers.train_flags(tmp_path, "x"), None)
        from motret.training.train import load_data

        load_data(config, sources)
    content = json.loads((made / "folds.json").read_text())
    belongs = {
        "variant": "holistic",
        "preset": "none",
        "text tower": "ViT-B-32 none",
        "data": content["data"],
        "folds": content["hash"],
    }
    file = tmp_path / "tune" / "holistic" / "best.json"

    def write(values, **other):
        file.parent.mkdir(parents=True, exist_ok=True)
        own = belongs | {name.replace("_", " "): word for name, word in other.items()}
        file.write_text(
            json.dumps({"values": values, "belongs": own, "tuned_on": [0], "confirmed_on": [1, 2]})
        )
        return file

    return write


def sources_of(folder):
    content = json.loads((folder / "args.json").read_text())
    return content["sources"], content["settings"]


def test_tuned_values_that_fit_are_taken_aloud_but_a_flag_wins(tmp_path, results, capsys):
    results({"lr": 0.002, "learn_tau": False, "batch_size": 5})
    assert helpers.run_training(tmp_path, "one", tuned="auto", fold=0, epochs=1) == 0
    sources, values = sources_of(tmp_path / "one")
    assert (values["lr"], values["learn_tau"], values["batch_size"]) == (0.002, False, 6)
    assert (sources["lr"], sources["learn_tau"], sources["batch_size"]) == (TUNED, TUNED, "flag")
    assert (
        "best.json on fold 0, confirmed on fold 1, 2: lr 0.002, learn_tau False, batch_size 5"
        in capsys.readouterr().out
    )
    assert helpers.run_training(tmp_path, "two", fold=0, epochs=1) == 0
    assert (
        sources_of(tmp_path / "two")[1]["lr"] == 0.0005
        and "tuned by" not in capsys.readouterr().out
    )


TUNED = "tuned on fold 0, confirmed on fold 1, 2"


def found(tmp_path, **values):
    made = tuned_values.find_tuned_values(
        cli.parse_train(helpers.train_flags(tmp_path, "x", **values), None)[0]
    )
    return made.values, made.message


def test_values_that_no_other_fold_confirmed_are_left_aside_aloud(tmp_path, results):
    file = results({"lr": 0.002})
    content = json.loads(file.read_text())
    file.write_text(
        json.dumps({name: content[name] for name in ("values", "belongs")})
    )  # as tune.py wrote it before it confirmed
    values, message = found(tmp_path, tuned="auto")
    assert (
        values == {}
        and "confirmed on no fold but those that chose them" in message
        and "python solution/tune.py holistic" in message
    )


@pytest.mark.parametrize(
    ("other", "flags", "said"),
    [
        ({"data": "elsewhere"}, {}, "data elsewhere, here "),
        ({"folds": "others"}, {}, "folds others, here "),
        ({"preset": "fast"}, {}, "preset fast, here none"),
        ({"variant": "sgar"}, {}, "variant sgar, here holistic"),
        ({}, {"text_tower": "ViT-L-14"}, "text tower ViT-B-32 none, here ViT-L-14 none"),
        ({}, {"folds_dir": "nowhere"}, "here None"),
    ],
)
def test_tuned_values_of_something_else_are_left_aside_aloud(tmp_path, results, other, flags, said):
    file = results({"lr": 0.002}, **other)
    for way in ("auto", file):
        values, message = found(tmp_path, tuned=way, **flags)
        assert values == {} and f"{file} is ignored" in message and said in message


def test_without_tuned_values_it_says_so_and_goes_on(tmp_path, results):
    assert found(tmp_path) == ({}, None)
    values, message = found(tmp_path, tuned="auto")
    assert values == {} and "python solution/tune.py holistic" in message
    results({})
    values, message = found(tmp_path, tuned="auto")
    assert values == {} and "the default stands" in message
    with pytest.raises(ConfigError, match="gone"):
        found(tmp_path, tuned=tmp_path / "gone.json")


def test_training_takes_what_tuning_wrote(tmp_path, monkeypatch):
    pretend(
        monkeypatch,
        lambda params, motions: (
            np.linspace(0.4, 0.6, motions) + 0.1 * (params["token_drop"] != 0.5)
        ),
    )
    assert run_tune(tmp_path, trials=2) == 0
    assert train.main(helpers.train_flags(tmp_path, "run", tuned="auto", fold=0, epochs=1)) == 0
    sources, values = sources_of(tmp_path / "run")
    expected = best(tmp_path)["values"]
    assert expected and {name: values[name] for name in expected} == expected
    assert {
        name for name, source in sources.items() if source.startswith("tuned on fold 0")
    } == expected.keys()
