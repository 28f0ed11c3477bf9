"""The plan of run_all: which data, which preset, which flags go where, and that a plan does nothing."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import run_all
from conftest import motion, write_data
from motret import cli, config, pipeline, submission_log
from motret.faults import DataFault, SettingFault
from motret.pipeline import DATA, Plan, Step, make_plan

KINDS = {
    "sample": config.SampleSettings,
    "prepare": config.PrepareSettings,
    "make_folds": config.FoldSettings,
    "ensemble": config.EnsembleSettings,
    "report": config.ReportSettings,
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository to stand in."""
    shutil.copy(config.ROOT / "SETTINGS.json", tmp_path)
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scripts(plan: Plan) -> list[str]:
    return [step.script for step in plan.steps]


def args_of(plan: Plan, script: str) -> tuple[str, ...]:
    step = next(step for step in plan.steps if step.script == script)  # of several, as of several variants, the first
    return step.args


def takers(plan: Plan, *words: str) -> set[str]:
    """The scripts whose arguments hold these words, one after the other."""
    text = " ".join(words)
    return {step.script for step in plan.steps if f" {text} " in f" {' '.join(step.args)} "}


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- what it runs on


def test_without_data_it_runs_on_a_generated_challenge_quickly_and_says_so(home: Path) -> None:
    plan = make_plan([])
    assert (plan.data_dir, plan.preset) == (Path("work/sample"), "fast")
    assert scripts(plan) == ["sample", "prepare", "make_folds", "tune", "train", "ensemble", "validate", "report"]
    (note,) = plan.notes
    assert "\n" not in note and "no data/" in note and "work/sample" in note
    assert takers(plan, "--data_dir", "work/sample") == set(scripts(plan)) - {"sample"}
    assert args_of(plan, "sample") == ("--out", "work/sample")


def test_with_data_it_runs_on_them_in_full(home: Path) -> None:
    (home / "data").mkdir()
    plan = make_plan([])
    assert (plan.data_dir, plan.preset, plan.notes) == (Path("data"), "full", ())
    assert scripts(plan) == ["prepare", "make_folds", "tune", "train", "train", "train", "ensemble", "validate", "report"]
    assert [step.args[0] for step in plan.steps if step.script == "train"] == ["holistic", "sgar", "clip"]
    assert takers(plan, "--data_dir", "data") == set(scripts(plan))
    assert takers(plan, "--preset", "full") == {"tune", "train"}


@pytest.mark.parametrize("flags", [["--data_dir", "pairs"], ["--data-dir", "pairs"], ["--data_dir=pairs"]])
def test_a_data_folder_that_is_named_wins(home: Path, flags: list[str]) -> None:
    (home / "data").mkdir()
    (home / "pairs").mkdir()
    plan = make_plan(flags)
    assert (plan.data_dir, plan.preset) == (Path("pairs"), "full") and takers(plan, "--data_dir", "pairs") == set(scripts(plan))


def test_a_preset_that_is_named_wins(home: Path) -> None:
    assert make_plan(["--preset", "full"]).preset == "full"
    (home / "data").mkdir()
    plan = make_plan(["--preset=fast"])
    assert plan.preset == "fast" and takers(plan, "--folds", str(config.PRESETS["fast"].values["folds"])) == {"make_folds"}


@pytest.mark.parametrize(
    ("flags", "fault", "said"),
    [
        (["--data_dir", "gone"], DataFault, "gone: no such folder"),
        (["--preset", "huge"], SettingFault, "--preset: no preset is called 'huge'"),
        (["--preset"], SettingFault, "--preset: no value"),
        (["fast"], SettingFault, "run_all.sh: 'fast' is no flag"),
        (["--epoch", "3"], SettingFault, "--epoch: no script knows this flag (did you mean --epochs"),
        (["--batchsize", "3"], SettingFault, "--batchsize: no script knows this flag (did you mean --batch_size"),
        (["--zzzzzz"], SettingFault, "--zzzzzz: no script knows this flag (see "),
        (["--run_name", "mine"], SettingFault, "--run_name: run_all.sh sets it itself"),
        (["--resume", "auto"], SettingFault, "--resume: run_all.sh sets it itself"),
        (["--runs", "a", "b"], SettingFault, "--runs: run_all.sh sets it itself"),
        (["--run", "a"], SettingFault, "--run: run_all.sh sets it itself"),
        (["--heads", "3"], SettingFault, "--heads: 3 heads do not divide"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(home: Path, flags: list[str], fault: type, said: str) -> None:
    with pytest.raises(fault) as caught:
        make_plan(flags)
    assert str(caught.value).startswith(said)


# ---- flags


DATA_SCRIPTS = {"prepare", "make_folds", "tune", "train", "ensemble", "report"}


@pytest.mark.parametrize(
    ("flags", "scripts_that_take_it"),
    [
        (["--lr", "3e-4"], {"tune", "train"}),
        (["--max-minutes", "10"], {"train"}),
        (["--no_learn_tau"], {"tune", "train"}),
        (["--text_tower=hf:folder"], {"tune", "train"}),
        (["--trials", "3"], {"tune"}),
        (["--fold_jobs", "2"], {"tune", "train"}),
        (["--jobs", "2"], DATA_SCRIPTS - {"tune"}),
        (["--seed", "1"], DATA_SCRIPTS),
        (["--work_dir", "elsewhere"], DATA_SCRIPTS),
        (["--no_rotations"], DATA_SCRIPTS),
        (["--strict"], DATA_SCRIPTS),
        (["--folds", "4"], {"make_folds", "tune", "train"}),
        (["--fold", "0"], {"train", "ensemble", "report"}),
        (["--pairs", "50"], {"report"}),
        (["--fold", "all"], {"train"}),
        (["--candidate_format", "name"], {"ensemble"}),
        (["--test_dir", "queries"], {"ensemble", "validate"}),
        (["--gt", "truth.csv"], {"validate"}),
        (["--verbose"], {"validate"}),
        (["--debug"], DATA_SCRIPTS | {"validate"}),
    ],
)
def test_a_flag_goes_to_the_scripts_that_know_it(home: Path, flags: list[str], scripts_that_take_it: set[str]) -> None:
    assert takers(make_plan(flags), *flags) == scripts_that_take_it


@pytest.mark.parametrize(
    ("flags", "answers"),
    [
        ([], Path("submissions/submission.csv")),
        (
            ["--preset", "full", "--fold", "all", "--folds", "4", "--seed", "3", "--jobs", "1", "--device", "cpu", "--debug"],
            Path("submissions/submission.csv"),
        ),
        (
            ["--fold", "1", "--max_minutes", "2", "--no_rotations", "--out", "mine.csv", "--candidate_format", "name", "--verbose"],
            Path("mine.csv"),
        ),
        (
            ["--id_width", "5", "--strict", "--min_frames", "8", "--submissions_dir", "s", "--out_dir", "r", "--folds_dir", "f"],
            Path("s/submission.csv"),
        ),
    ],
)
def test_every_script_understands_its_step(home: Path, flags: list[str], answers: Path) -> None:
    for step in make_plan(flags).steps:
        if step.script == "train":
            settings, sources = cli.parse_train(step.args, None)
            assert settings.resume == "auto" and sources["run_name"] == "flag" and settings.preset in step.args
        elif step.script == "tune":
            asked, rest = cli.parse_tune(step.args, None)
            settings, _ = cli.parse_train(rest, None)
            assert asked.preset == settings.preset in step.args and asked.out_dir == settings.out_dir
        elif step.script == "validate":
            settings = cli.parse_one_of({"submission": config.SubmissionSettings}, step.args, None)
            assert settings.file == answers
        else:
            settings = cli.parse(KINDS[step.script], step.args, None)
        if "--seed" in flags and step.script in DATA_SCRIPTS:
            assert settings.machine.seed == 3


def test_the_number_of_folds_is_the_presets_unless_it_is_given(home: Path) -> None:
    assert args_of(make_plan([]), "make_folds").count("--folds") == 1
    assert cli.parse(config.FoldSettings, args_of(make_plan([]), "make_folds"), None).folds == config.PRESETS["fast"].values["folds"]
    given = args_of(make_plan(["--folds", "4"]), "make_folds")
    assert given.count("--folds") == 1 and cli.parse(config.FoldSettings, given, None).folds == 4


def test_a_step_is_told_as_one_would_type_it() -> None:
    assert Step("pack", "prepare", ("--data_dir", "data")).command() == "python solution/prepare.py --data_dir data"


# ---- run names


def run_name(*flags: str) -> str:
    args = args_of(make_plan(flags), "train")
    return args[args.index("--run_name") + 1]


def test_the_same_command_finds_its_run_again_and_another_makes_another(home: Path) -> None:
    assert run_name() == run_name() == run_name("--device", "cpu") == run_name("--jobs", "1") == run_name("--debug")
    assert (
        len({run_name(), run_name("--lr", "1e-4"), run_name("--seed", "1"), run_name("--epochs", "3"), run_name("--preset", "full")}) == 5
    )


def test_the_runs_that_are_trained_are_averaged_and_reported(home: Path) -> None:
    plan = make_plan([])
    assert takers(plan, "--run", run_name()) == {"report"}
    assert takers(plan, "--runs", run_name()) == {"ensemble"} and DATA in run_name()


def test_a_runs_name_holds_the_data_and_folds_once_they_are_known(home: Path) -> None:
    plan = make_plan([])
    train = plan.steps[4]
    assert plan.known(train) == train
    (home / "folds").mkdir()
    names = set()
    for data, folds_hash in (("d", "f"), ("d", "g"), ("e", "f")):
        (home / "folds" / "folds.json").write_text(json.dumps({"data": data, "hash": folds_hash}))
        known = [plan.known(step).args for step in plan.steps]
        assert not any(DATA in arg for args in known for arg in args)
        name = known[4][known[4].index("--run_name") + 1]
        assert name in known[5]
        names.add(name)
    assert len(names) == 3
    (home / "folds" / "folds.json").write_text("[]")
    assert plan.known(train) == train


def test_a_runs_name_holds_the_tuned_values_it_takes(home: Path) -> None:
    plan = make_plan([])
    (home / "folds").mkdir()
    (home / "folds" / "folds.json").write_text(json.dumps({"data": "d", "hash": "f"}))
    best = home / "runs" / "tune" / "holistic" / "best.json"
    best.parent.mkdir(parents=True)

    def name(values: dict, data: str = "d") -> str:
        belongs = {"variant": "holistic", "preset": "fast", "text tower": "ViT-B-32 none", "data": data, "folds": "f"}
        best.write_text(json.dumps({"values": values, "belongs": belongs, "tuned_on": [0], "confirmed_on": [1]}))
        train, rank = plan.known(plan.steps[4]).args, plan.known(plan.steps[5]).args
        found = train[train.index("--run_name") + 1]
        assert found in rank and "<" not in found and make_plan([]) == plan
        return found

    untuned = name({})
    assert name({"lr": 1e-3}, data="other") == untuned  # left aside by train.py
    tuned = name({"lr": 1e-3})
    assert tuned.startswith(untuned) and tuned != untuned != name({"lr": 2e-3}) != tuned and name({"lr": 1e-3}) == tuned


def test_a_runs_name_holds_the_part_texts_it_learns_from(home: Path) -> None:
    (home / "data" / "texts").mkdir(parents=True)
    (home / "folds").mkdir()
    plan = make_plan([])
    at = {step.args[0]: step for step in plan.steps if step.script == "train"}
    rank = next(step for step in plan.steps if step.script == "ensemble")

    def names(content: object) -> dict[str, str]:
        (home / "data" / "texts" / "gar_train.json").write_text(json.dumps(content))
        found = {variant: (args := plan.known(step).args)[args.index("--run_name") + 1] for variant, step in at.items()}
        assert set(found.values()) <= set(plan.known(rank).args) and make_plan([]) == plan
        return found

    before = {step: plan.known(step) for step in plan.steps}
    (home / "folds" / "folds.json").write_text(json.dumps({"data": "d", "hash": "f"}))
    one, other = ([{"id": 1, "part_descriptions": {"torso": text}}] for text in ("bends", "leans"))
    first, second = names(one), names(other)
    assert first["sgar"] != second["sgar"] and names(one) == first
    assert all(first[variant] == second[variant] for variant in ("holistic", "clip"))
    (home / "data" / "texts" / "gar_train.json").write_text("no JSON")
    for step in plan.steps[:3]:  # the steps before training do not read it
        assert plan.known(step) == before[step] == step


@pytest.mark.parametrize("which", ["none", "mine.json"])
def test_nothing_is_tuned_where_it_is_said_what_to_take(home: Path, which: str) -> None:
    plan = make_plan(["--tuned", which])
    assert "tune" not in scripts(plan) and takers(plan, "--tuned", which) == {"train"}
    settings, _ = cli.parse_train(args_of(plan, "train"), None)
    assert settings.tuned == which and takers(make_plan([]), "--tuned", "auto") == {"train"}


# ---- doing it


class Recorder:
    """Stands in for subprocess.run: notes the scripts and their arguments; some of them fail."""

    def __init__(self, codes: dict[str, int] | None = None):
        self.codes, self.calls = codes or {}, []

    def __call__(self, command: list[str], **how) -> subprocess.CompletedProcess:
        script = Path(command[1])
        assert script.parent == config.ROOT / "solution"
        self.calls.append((script.stem, tuple(command[2:])))
        return subprocess.CompletedProcess(command, self.codes.get(script.stem, 0))

    @property
    def scripts(self) -> list[str]:
        return [script for script, _ in self.calls]


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run"])
def test_a_dry_run_prints_the_plan_and_does_nothing(
    home: Path, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(subprocess, "run", recorder)
    before = contents(home)
    assert run_all.main(["--lr", "3e-4", flag]) == 0
    note, about, *steps = capsys.readouterr().out.splitlines()
    assert "no data/" in note and about == "data work/sample, preset fast"
    assert [line.split(":")[1].split()[1] for line in steps] == [
        f"solution/{name}.py" for name in ("sample", "prepare", "make_folds", "tune", "train", "ensemble", "validate", "report")
    ]
    assert steps[0].startswith("[1/8]") and steps[-1].startswith("[8/8]") and "--lr 3e-4" in steps[4]
    assert recorder.calls == [] and contents(home) == before


def test_a_plan_that_cannot_be_made_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["--epoch", "3"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: --epoch: ") and captured.err.count("\n") == 1


def test_help_is_the_scripts_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["--preset", "fast", "--help"]) == 0
    assert "bash run_all.sh --dry_run" in capsys.readouterr().out and contents(home) == {"SETTINGS.json"}


def write_log(home: Path, true_score: dict | None) -> None:
    (home / "submissions").mkdir()
    with (home / "submissions" / "log.csv").open("w", newline="") as log:
        csv.writer(log).writerows(
            [submission_log.COLUMNS, *((str(time), name, *[""] * 6) for time, name in enumerate(("old.csv", "new.csv")))]
        )
    about = {"local_score": {"mean": 0.71234, "error": 0.02}, "true_score": true_score}
    (home / "submissions" / "new.json").write_text(json.dumps(about))


@pytest.mark.parametrize("true_score", [None, {"mean": 0.6543, "error": 0.06}])
def test_a_run_calls_the_scripts_in_order_and_ends_with_the_scores(
    home: Path, true_score: dict | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(subprocess, "run", recorder)
    monkeypatch.setattr(pipeline, "forecast", lambda plan: f"forecast after {len(recorder.calls)}")
    write_log(home, true_score)
    assert run_all.main(["--seed", "4"]) == 0
    plan = make_plan(["--seed", "4"])
    assert recorder.calls == [(step.script, step.args) for step in plan.steps]
    out = capsys.readouterr().out.splitlines()
    assert "forecast after 3" in out
    told = ["submission  submissions/submission.csv", "local score 0.7123 +- 0.0200", "true score  0.6543 +- 0.0600"]
    assert out[-3:] == told if true_score else out[-2:] == told[:2]


def test_names_of_runs_are_filled_in_when_the_folds_are_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Folding(Recorder):
        def __call__(self, command: list[str], **how) -> subprocess.CompletedProcess:
            if Path(command[1]).stem == "make_folds":
                (home / "folds").mkdir()
                (home / "folds" / "folds.json").write_text('{"data": "d", "hash": "f"}')
            return super().__call__(command, **how)

    recorder = Folding()
    monkeypatch.setattr(subprocess, "run", recorder)
    monkeypatch.setattr(pipeline, "forecast", lambda plan: "")
    write_log(home, None)
    assert run_all.main([]) == 0
    train, rank = recorder.calls[4][1], recorder.calls[5][1]
    assert DATA not in " ".join(train) and train[train.index("--run_name") + 1] == rank[rank.index("--runs") + 1]


@pytest.mark.parametrize(("fails", "code", "before"), [("sample", 1, 0), ("make_folds", 2, 2), ("ensemble", 130, 5)])
def test_a_run_stops_at_the_step_that_fails_and_hands_on_its_exit_code(
    home: Path, fails: str, code: int, before: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder({fails: code})
    monkeypatch.setattr(subprocess, "run", recorder)
    monkeypatch.setattr(pipeline, "forecast", lambda plan: "")
    assert run_all.main([]) == code
    assert recorder.scripts[-1] == fails and len(recorder.calls) == before + 1
    assert f"stopped at step {before + 1}" in capsys.readouterr().err


# ---- the forecast


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a million operations a second."""
    monkeypatch.setattr(pipeline, "_matrix_rate", lambda: 1e6)


def test_a_time_limit_bounds_the_forecast(home: Path, slow: None) -> None:
    write_data(home / "data", ["1", "2", "3", "4"])
    limit = ["--max_minutes", "2"]
    for flags, told in (  # for three variants
        ([*limit, "--folds", "3", "--tuned", "none"], "18 min"),
        ([*limit, "--fold", "0", "--tuned", "none"], "6 min"),
        ([*limit, "--fold", "0"], f"{6 + config.PRESETS['full'].tuning['max_minutes']:.0f} min"),
    ):
        assert pipeline.forecast(make_plan(flags)).startswith(f"forecast: about {told} on this machine, ")
    assert " h on this machine" in pipeline.forecast(make_plan([]))


@pytest.mark.parametrize("persons", [1, 2])
def test_broken_files_do_not_stop_the_forecast(home: Path, slow: None, persons: int) -> None:
    motions = {str(number): motion(20, persons, number) for number in range(1, 5)}
    root = write_data(home / "data", motions)
    before = pipeline.forecast(make_plan([]))
    for number in (1, 4):
        (root / "motions" / f"{number}.npy").write_bytes(b"")
    assert pipeline.forecast(make_plan([])) == before
    for number in (2, 3):
        np.save(root / "motions" / f"{number}.npy", np.zeros((20, 5)))
    with pytest.raises(DataFault, match="no readable motion"):
        pipeline.forecast(make_plan([]))


def test_a_run_that_holds_nothing_out_is_refused_before_it_starts() -> None:
    with pytest.raises(SettingFault, match="--fold: full holds nothing out"):
        make_plan(["--fold", "full"])
