"""tune.py by its command line on a small generated challenge: what it leaves, that it repeats itself, several workers, killed ones."""

import csv
import json
import os
import select
import socket
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import tiny
import train
import tune
import waiting_tower
from motret import cli, config, fit, metrics, runs, search_space, tuned, tuning
from motret.faults import SettingFault
from motret.folds import Folds
from motret.history import Epoch

ROOT = Path(__file__).parents[1]
RESULTS = {"best.json", "history.png", "importance.png", "journal.log", "parallel.png", "trials.csv"}


def tune_flags(out_dir, **values):
    """Flags of tiny trials; their warm-up never ends, since a collapse after it, which a drawn rate may bring, would fail them."""
    sizes = tiny.SMALL | tiny.SCRATCH | {"epochs": 3, "warmup_epochs": 3} | values
    small = {name: value for name, value in sizes.items() if name not in ("device", "jobs")}
    jobs = {"jobs": values.get("jobs", 1)}
    places = [flag for flag in tiny.places() if not flag.startswith("--jobs")]
    return ["holistic", *places, *tiny.flags(out_dir=out_dir, folds=2, **small, **jobs)]


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
    return {name: row[name] for name in ("tau", "learn_tau", "token_drop", "label_smoothing", "patch")} == {
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
    assert rows[0]["state"] == "complete" and {row["state"] for row in rows} <= {"complete", "pruned"}
    assert len({row["lr"] for row in rows}) == 3
    assert runs.find_runs(searched) == []


def test_the_best_is_never_worse_than_the_default(searched):
    about, scores = best(searched), [float(row["score"]) for row in table(searched) if row["state"] == "complete"]
    assert about["best"]["mean"] == pytest.approx(max(scores), abs=1e-5) and about["default"]["mean"] == pytest.approx(scores[0], abs=1e-5)
    assert about["gain"]["mean"] >= 0 and about["trials"] == 3
    assert about["better"] == (about["gain"]["mean"] > about["gain"]["error"]) == bool(about["values"])


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
    """Trials whose per-motion scores are `score_of(params, motions)`."""

    def score(search, trial):
        _, made, *_ = tuning.room(search.base)
        held = np.concatenate([made.held_out(fold) for fold in range(search.count)])
        values = score_of(trial.params, len(held))
        return metrics.clustered(values, made.group[held]), values

    monkeypatch.setattr(tuning, "_score", score)
    monkeypatch.setattr(tuning.tuning_plots, "draw", lambda *about: None)


def test_what_is_drawn_follows_from_the_seed_and_what_was_found(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda params, motions: np.linspace(0, params["lr"] * 100, motions))
    for name, seed, trials in (("one", 0, 9), ("two", 0, 4), ("two", 0, 9), ("three", 1, 9)):
        assert run_tune(tmp_path / name, trials=trials, seed=seed) == 0
    one, two, three = (without_times(table(tmp_path / name)) for name in ("one", "two", "three"))
    assert one == two and one[0] == three[0] and one[1]["lr"] != three[1]["lr"]
    pretend(monkeypatch, lambda params, motions: np.linspace(0, params["patch"], motions))
    assert run_tune(tmp_path / "four", trials=9) == 0
    four = table(tmp_path / "four")
    drawn = [[row["lr"] for row in rows] for rows in (one, four)]
    assert drawn[0][: tuning.STARTUP] == drawn[1][: tuning.STARTUP] and drawn[0][-1] != drawn[1][-1]


def test_a_best_that_is_better_by_more_than_its_error_is_taken(tmp_path, monkeypatch, capsys):
    noise = np.random.default_rng(0)

    def score_of(params, motions):
        return 0.5 + 0.1 * (params["patch"] != 6) + noise.normal(0, 0.05, motions)

    pretend(monkeypatch, score_of)
    assert run_tune(tmp_path, trials=6) == 0
    about = best(tmp_path)
    assert about["better"] and about["values"] == about["best"]["values"] and about["values"]["patch"] != 6
    assert 0.03 < about["gain"]["mean"] < 0.2 and "better by" in capsys.readouterr().out


def test_a_best_within_its_error_leaves_the_default_in_place(tmp_path, monkeypatch, capsys):
    def score_of(params, motions):
        values = np.full(motions, 0.5)
        if params["patch"] != 6:
            values[0], values[1:3] = 0.9, 0.4  # a mean gain of a fraction of its error
        return values

    pretend(monkeypatch, score_of)
    assert run_tune(tmp_path, trials=6) == 0
    about = best(tmp_path)
    assert about["best"]["trial"] != 0 and 0 < about["gain"]["mean"] < about["gain"]["error"]
    assert about["values"] == {} and not about["better"] and "the default stands" in capsys.readouterr().out


def test_the_gain_is_paired_and_its_error_counts_groups():
    made = Folds(np.array([0, 1, 0, 0, 1, 0]), np.array(["a", "x", "a", "b", "y", "c"]), "h", 2)
    default, other = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.2, 0.3, 0.5, 0.8])
    study = optuna.create_study(direction="maximize")
    for params, scores in (({"lr": 1.0}, default), ({"lr": 2.0}, other)):
        space = {"lr": optuna.distributions.FloatDistribution(0.5, 3)}
        attributes = {"scores": scores.tolist()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=scores.mean(), user_attrs=attributes))
    search = tuning.Search(tiny.settings(), config.TuneSettings(), {}, {"lr": 1.0}, None, {}, 1)
    gain = tuning.outcome(search, study, made).gain
    by_group = [(other - default)[:2].sum(), (other - default)[2], (other - default)[3]]
    mean = (other - default).mean()
    sums = np.array([by_group[0] - 2 * mean, by_group[1] - mean, by_group[2] - mean])
    clustered = np.sqrt(3 / 2 * (sums**2).sum()) / 4
    assert gain.mean == pytest.approx(0.075) and gain.error == pytest.approx(max(clustered, (other - default).std(ddof=1) / 2))


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
    assert failed and len(rows) == 5 and all(row["state"] == "fail" and row["fault"] == "the sky fell" for row in failed)
    assert "failed (the sky fell)" in capsys.readouterr().out


def test_what_is_wrong_with_the_default_configuration_stops_the_search_and_may_be_mended(tmp_path, capsys, monkeypatch):
    wild = {"lr": 1e30, "grad_clip": 0, "warmup_epochs": 0}
    assert run_tune(tmp_path, trials=2, **wild) == 1
    assert "the loss is nan" in capsys.readouterr().err and not (tmp_path / "tune" / "holistic" / "best.json").exists()


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
    assert [row["state"] for row in rows] == ["fail", "complete", "complete", "complete"] and default_of(rows[1])


# ---- time


def trial_of(begin, end, state=TrialState.COMPLETE):
    start = datetime(2026, 1, 1)
    made = optuna.trial.create_trial(value=0.5 if state == TrialState.COMPLETE else None, state=state)
    made.datetime_start, made.datetime_complete = start + timedelta(seconds=begin), start + timedelta(seconds=end)
    return made


def test_time_counts_once_where_trials_ran_side_by_side():
    assert tuning._spent([]) == 0
    assert tuning._spent([trial_of(0, 10), trial_of(5, 12), trial_of(6, 8), trial_of(100, 101)]) == 13


@pytest.mark.parametrize(("minutes", "more"), [(None, True), (0.5, True), (0.4, False)])
def test_no_trial_begins_that_would_not_fit(minutes, more):
    study = optuna.create_study(direction="maximize")
    for trial in (trial_of(0, 12), trial_of(12, 14, TrialState.PRUNED)):
        study.add_trial(trial)
    search = tuning.Search(tiny.settings(), config.TuneSettings(trials=9), {}, {}, minutes, {}, 1)
    assert tuning._used_up(search, study) is not more  # 14 s are spent, and a whole trial takes 12


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
    search = tuning.Search(tiny.settings(epochs=4), config.TuneSettings(), {}, {"lr": 1.0}, None, {}, 2)
    line = Epoch(3, 1.0, 1e-3, 0.07, 1.0, score=0.6)
    default, other = Reporter({"lr": 1.0}), Reporter({"lr": 2.0})
    tuning._report(search, default, 1, line)
    assert default.reports == [(0.6, 7)] and datetime.fromisoformat(default.said["heard"]) <= datetime.now()
    with pytest.raises(optuna.TrialPruned):
        tuning._report(search, other, 0, line)
    assert other.reports == [(0.6, 3)]


@pytest.mark.parametrize(("pruner", "ends"), [("median", True), ("hyperband", True), ("none", False)])
def test_a_pruner_ends_trials_that_fall_behind(tmp_path, monkeypatch, pruner, ends):
    def fit_of_falling_scores(run, data, made, place, tower, fold, watch):
        for epoch in range(1, run.settings.fit.epochs + 1):
            worse = int(run.folder.name.removeprefix("trial")) / 100
            watch(Epoch(epoch, 1.0, 1e-3, 0.07, 1.0, score=0.9 - worse))
        held = made.held_out(fold)
        same = np.ones((len(held), 1), dtype=np.float32)
        runs.save_out_of_fold(run.part(fold) / "oof.npz", runs.OutOfFold(held, held, same, same, np.arange(len(held))))

    monkeypatch.setattr(fit, "fit", fit_of_falling_scores)
    monkeypatch.setattr(tuning.tuning_plots, "draw", lambda *about: None)
    assert run_tune(tmp_path, trials=9, pruner=pruner, tune_folds=2, epochs=4) == 0
    rows = table(tmp_path)
    assert ("pruned" in {row["state"] for row in rows}) == ends and rows[0]["state"] == "complete"
    assert best(tmp_path)["folds"] == 2 and all(int(row["epochs"]) == 8 for row in rows if row["state"] == "complete")


# ---- several workers


def test_workers_side_by_side_share_out_the_trials(tmp_path, capfd):
    assert run_tune(tmp_path, trials=4, jobs=2, epochs=1) == 0
    rows = table(tmp_path)
    told = [line.split(":")[0] for line in capfd.readouterr().out.splitlines() if line.startswith("trial ")]
    assert sorted(told) == [f"trial {number}" for number in range(4)]
    assert len(rows) == 4 == len({row["lr"] for row in rows}) and default_of(rows[0])


def test_a_killed_worker_leaves_the_study_to_the_others_and_its_trial_is_run_again(tmp_path):
    flags = tune_flags(tmp_path, trials=3, epochs=1, motion_tower="waiting_tower:WaitingTower")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    surroundings = os.environ | {waiting_tower.PIPE: str(pipe), "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, str(ROOT / "solution" / "tune.py"), *flags], env=surroundings) as worker:
        try:
            assert select.select([reading], [], [], 120)[0], "the worker has not come to its second trial"
            assert tune.main(flags) == 0  # another worker, while the first one is at its second trial
            assert [row["state"] for row in table(tmp_path)] == ["complete", "running", "complete"]
        finally:
            worker.kill()
            os.close(reading)
    assert tune.main(flags) == 0
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == ["complete", "fail", "complete", "complete"]
    settings = [name for name in rows[0] if name in search_space.SHARED]
    assert [rows[3][name] for name in settings] == [rows[1][name] for name in settings] != [rows[2][name] for name in settings]
    assert {path.name for path in (tmp_path / "tune" / "holistic").iterdir()} == RESULTS
    assert best(tmp_path)["trials"] == 3


def test_a_trial_is_lost_with_its_process_and_elsewhere_when_nothing_is_heard_of_it():
    def lost(worker, began, heard=None):
        """Of a trial that began, and was last heard of, so many hours ago."""
        now = datetime.now()
        said = {"worker": worker} | ({} if heard is None else {"heard": (now - timedelta(hours=heard)).isoformat()})
        trial = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=said, params={}, distributions={})
        trial.datetime_start = now - timedelta(hours=began)
        return tuning.lost(trial)

    here = f"{socket.gethostname()}:{os.getpid()}"
    assert not lost(here, began=1) and not lost("elsewhere:1", began=1) and not lost("elsewhere:1", began=30, heard=1)
    assert lost(f"{socket.gethostname()}:{2**22 + 1}", began=0) and lost("elsewhere:1", began=30, heard=13)
    assert lost("elsewhere:1", began=13) and lost("", began=13) and not lost("", began=1)


def test_a_study_may_be_kept_in_a_data_base(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda params, motions: np.full(motions, 0.5))
    assert run_tune(tmp_path, trials=2, storage=f"sqlite:///{tmp_path}/study.db") == 0
    assert (tmp_path / "study.db").is_file() and not (tmp_path / "tune" / "holistic" / "journal.log").exists()
    assert len(table(tmp_path)) == 2


def test_a_storage_that_cannot_be_had_is_a_fault_of_its_flag(tmp_path, capsys):
    assert run_tune(tmp_path, trials=1, storage="nosuchbase://here/study") == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: --storage: nosuchbase://here/study cannot be opened")


# ---- the command line


def test_flags_of_training_go_through_and_the_preset_gives_the_rest(monkeypatch):
    asked, rest = cli.parse_tune(["sgar", "holistic", "--preset", "fast", "--lr", "3e-4", "--max-minutes=2", "--no_learn_tau"], None)
    assert asked.variants == ("sgar", "holistic") and asked.max_minutes == 2
    assert asked.trials == config.PRESETS["fast"].tuning["trials"]
    settings, sources = cli.parse_train(["sgar", *rest], None)
    assert (settings.preset, settings.fit.lr, settings.loss.learn_tau, settings.fit.max_minutes) == ("fast", 3e-4, False, None)
    assert {name for name, source in sources.items() if source == "flag"} == {"preset", "lr", "learn_tau"}


def test_without_a_name_every_variant_of_the_preset_is_tuned(monkeypatch, capsys):
    tuned_variants = []
    monkeypatch.setitem(config.PRESETS, "fast", config.Preset(("sgar", "holistic"), config.PRESETS["fast"].values, {}))
    monkeypatch.setattr(tuning, "tune", lambda settings, sources, asked, share: tuned_variants.append((settings.variant, share)) or "done")
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


@pytest.mark.parametrize("preset", [*config.PRESETS])
@pytest.mark.parametrize("variant", [*config.VARIANTS])
def test_every_setting_of_the_table_exists_and_its_default_lies_inside(variant, preset):
    settings, _ = cli.parse_train([variant, "--preset", preset], None)
    known, given = search_space.SPACES.get(variant, search_space.SHARED), config.flat(settings)
    assert known.keys() <= given.keys()
    for name, item in known.items():
        assert item.around(given[name]) == item, name
    space, default = search_space.space_of(settings)
    assert default == {name: given[name] for name in space}
    assert {"tau", "learn_tau", "lr", "label_smoothing"} <= space.keys()


def test_what_means_nothing_to_a_configuration_is_not_searched():
    def names(*flags, variant="holistic"):
        return search_space.space_of(cli.parse_train([variant, *flags], None)[0])[0].keys()

    assert "negative_threshold" in names() and "text_lr_mult" not in names()
    assert not {"negative_threshold", "text_lr_mult"} & names("--text_weights", "none")
    assert (
        "lambda_mix" in names(variant="sgar") and "lambda_mix" not in names() and "lambda_mix" not in names("--no_use_gar", variant="sgar")
    )


def test_a_model_of_ones_own_is_searched_by_the_shared_table_around_its_own_values(monkeypatch):
    monkeypatch.setitem(config.VARIANTS, "mine", {"lr": 0.05, "patch": 5})
    space, default = search_space.space_of(cli.parse_train(["mine", "--text_weights", "none"], None)[0])
    assert default["lr"] == space["lr"].high == 0.05 and 5 in space["patch"].choices


# ---- train.py --tuned


@pytest.fixture
def results(tmp_path):
    """A best.json for the tiny challenge, and a way to change it."""
    made = Path(f"{tiny.challenge()}-folds")
    if not (made / "folds.json").is_file():
        settings, sources = cli.parse_train(tiny.train_flags(tmp_path, "x"), None)
        from motret import training

        training.load(settings, sources)
    about = json.loads((made / "folds.json").read_text())
    belongs = {"variant": "holistic", "preset": "none", "text tower": "ViT-B-32 none", "data": about["data"], "folds": about["hash"]}
    file = tmp_path / "tune" / "holistic" / "best.json"

    def write(values, **other):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"values": values, "belongs": belongs | {name.replace("_", " "): word for name, word in other.items()}}))
        return file

    return write


def sources_of(folder):
    about = json.loads((folder / "args.json").read_text())
    return about["sources"], about["settings"]


def test_tuned_values_that_fit_are_taken_aloud_but_a_flag_wins(tmp_path, results, capsys):
    results({"lr": 0.002, "learn_tau": False, "batch_size": 5})
    assert tiny.run_training(tmp_path, "one", tuned="auto", fold=0, epochs=1) == 0
    sources, values = sources_of(tmp_path / "one")
    assert (values["lr"], values["learn_tau"], values["batch_size"]) == (0.002, False, 6)
    assert (sources["lr"], sources["learn_tau"], sources["batch_size"]) == ("tuned", "tuned", "flag")
    assert "best.json: lr 0.002, learn_tau False" in capsys.readouterr().out
    assert tiny.run_training(tmp_path, "two", fold=0, epochs=1) == 0
    assert sources_of(tmp_path / "two")[1]["lr"] == 0.0005 and "tuned by" not in capsys.readouterr().out


def found(tmp_path, **values):
    return tuned.find(cli.parse_train(tiny.train_flags(tmp_path, "x", **values), None)[0])


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
        values, told = found(tmp_path, tuned=way, **flags)
        assert values == {} and f"{file} is left aside" in told and said in told


def test_without_tuned_values_it_says_so_and_goes_on(tmp_path, results):
    assert found(tmp_path) == ({}, None)
    values, told = found(tmp_path, tuned="auto")
    assert values == {} and "python solution/tune.py holistic" in told
    results({})
    values, told = found(tmp_path, tuned="auto")
    assert values == {} and "the default stands" in told
    with pytest.raises(SettingFault, match="gone"):
        found(tmp_path, tuned=tmp_path / "gone.json")


def test_training_takes_what_tuning_wrote(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda params, motions: np.full(motions, 0.5 + 0.1 * (params["token_drop"] != 0.5)))
    assert run_tune(tmp_path, trials=2) == 0
    assert train.main(tiny.train_flags(tmp_path, "run", tuned="auto", fold=0, epochs=1)) == 0
    sources, values = sources_of(tmp_path / "run")
    expected = best(tmp_path)["values"]
    assert expected and {name: values[name] for name in expected} == expected
    assert {name for name, source in sources.items() if source == "tuned"} == expected.keys()
