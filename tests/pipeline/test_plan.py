"""The plan of run_all.sh: its data, models, flags and run names; and what a run of it does."""

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import run_all
from helpers import write_data
from motret.config import base, cli, presets, scripts
from motret.errors import ConfigError, DataError, WeightsError
from motret.formats import submission_log
from motret.pipeline import preflight
from motret.pipeline.plan import Plan, make_plan, run_plan
from motret.pipeline.steps import Step
from motret.utils import logs, network

CONFIGS = {
    "sample": scripts.SampleConfig,
    "prepare": scripts.PrepareConfig,
    "make_folds": scripts.FoldConfig,
    "ensemble": scripts.EnsembleConfig,
    "report": scripts.ReportConfig,
}
DATA_SCRIPTS = {"prepare", "make_folds", "tune", "train", "ensemble", "report"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository as current folder."""
    logs.show_logs()
    shutil.copy(base.ROOT / "SETTINGS.json", tmp_path)
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "hub_reachable", lambda: True)
    return tmp_path


def with_test(data: Path) -> Path:
    """A data folder with a test folder; planning reads nothing else."""
    (data / "test").mkdir(parents=True)
    return data


def script_names(plan: Plan) -> list[str]:
    return [step.script for step in plan.steps]


def args_of(plan: Plan, script: str) -> tuple[str, ...]:
    """The arguments of the first call of a script."""
    return plan.args_of(script)[0]


def takers(plan: Plan, *words: str) -> set[str]:
    """The scripts whose arguments contain these words in a row."""
    text = " ".join(words)
    return {step.script for step in plan.steps if f" {text} " in f" {' '.join(step.args)} "}


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- data, presets and models


def test_without_data_it_runs_the_fast_preset_on_a_generated_challenge_and_says_so() -> None:
    plan = make_plan([])
    assert (plan.data_dir, plan.preset) == (Path("work/sample"), "fast")
    before, after = ["sample", "prepare", "make_folds", "tune"], ["ensemble", "validate", "report"]
    assert script_names(plan) == [*before, *["train"] * 3, *after]
    (note,) = plan.notes
    assert "\n" not in note and "no data/" in note and "work/sample" in note
    assert takers(plan, "--data_dir", "work/sample") == set(script_names(plan)) - {"sample"}
    assert args_of(plan, "sample") == ("--out", "work/sample")


def test_the_fast_preset_trains_three_different_models_and_tunes_one() -> None:
    plan = make_plan([])
    configs = [cli.parse_train(args, None)[0] for args in plan.args_of("train")]
    assert [config.variant for config in configs] == ["holistic", "sgar", "clip"]
    assert len({(config.motion, config.text, config.parts.use_gar) for config in configs}) == 3
    assert [config.text.text_pool for config in configs] == ["mean", "mean", "end"]
    tune_config, _ = cli.parse_tune(args_of(plan, "tune"), None)
    assert tune_config.variants == ("holistic",) and tune_config.trials >= 8
    assert takers(plan, "--views", "mirror") == {"ensemble"}
    assert takers(make_plan(["--views", "none"]), "--views", "mirror") == set()


def test_with_data_it_runs_the_full_preset_on_them(home: Path) -> None:
    with_test(home / "data")
    plan = make_plan([])
    assert (plan.data_dir, plan.preset, plan.notes) == (Path("data"), "full", ())
    before, after = ["prepare", "make_folds", "tune"], ["ensemble", "validate", "report"]
    assert script_names(plan) == [*before, *["train"] * 3, *after]
    assert [args[0] for args in plan.args_of("train")] == ["holistic", "sgar", "clip"]
    assert takers(plan, "--data_dir", "data") == set(script_names(plan))
    assert takers(plan, "--preset", "full") == {"tune", "train"}


@pytest.mark.parametrize(
    ("gpus", "flags", "at_a_time", "fold_jobs", "tune_jobs"),
    [
        ("", "", 1, 1, 1),
        ("0", "", 1, 1, 1),
        ("0 1", "", 2, 1, 2),  # a variant on each of two T4
        ("0 1", "--variants holistic", 1, 2, 2),  # a fold on each
        ("0 1 2 3", "--variants holistic sgar", 2, 2, 4),
        ("0 1", "--fold_jobs 3", 1, 3, 2),
        ("0 1", "--device cuda:1", 1, 1, 1),
    ],
)
def test_several_gpus_are_shared_by_variants_folds_and_trials(
    gpus: str,
    flags: str,
    at_a_time: int,
    fold_jobs: int,
    tune_jobs: int,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("motret.pipeline.plan.visible_gpus", gpus.split)
    with_test(home / "data")
    plan = make_plan(flags.split())
    assert plan.n_parallel == at_a_time
    configs = [cli.parse_train(args, None)[0] for args in plan.args_of("train")]
    assert {config.fold_jobs for config in configs} == {fold_jobs}
    tune_config, _ = cli.parse_tune(args_of(plan, "tune"), None)
    assert tune_config.jobs == tune_jobs


def test_the_number_of_gpus_changes_no_run_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = make_plan(["--preset", "full"]).run_names()
    monkeypatch.setattr("motret.pipeline.plan.visible_gpus", lambda: ["0", "1"])
    assert make_plan(["--preset", "full"]).run_names() == names


@pytest.mark.parametrize("flags", ["--data_dir pairs", "--data-dir pairs", "--data_dir=pairs"])
def test_a_data_folder_that_a_flag_names_wins(home: Path, flags: str) -> None:
    (home / "data").mkdir()
    with_test(home / "pairs")
    plan = make_plan(flags.split())
    assert (plan.data_dir, plan.preset) == (Path("pairs"), "full")
    assert takers(plan, "--data_dir", "pairs") == set(script_names(plan))


def test_a_preset_that_a_flag_names_wins(home: Path) -> None:
    assert make_plan(["--preset", "full"]).preset == "full"
    with_test(home / "data")
    plan = make_plan(["--preset=fast"])
    n_folds = presets.PRESETS["fast"].values["folds"]
    assert plan.preset == "fast" and takers(plan, "--folds", str(n_folds)) == {"make_folds"}


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ("--data_dir gone", DataError, "gone: no such folder"),
        ("--preset huge", ConfigError, "--preset: no preset is called 'huge'"),
        ("--preset", ConfigError, "--preset: no value"),
        ("fast", ConfigError, "run_all.sh: 'fast' is no flag"),
        ("--epoch 3", ConfigError, "--epoch: no script knows this flag (did you mean --epochs"),
        ("--batchsize 3", ConfigError, "--batchsize: no script knows this flag (did you mean --ba"),
        ("--zzzzzz", ConfigError, "--zzzzzz: no script knows this flag (see "),
        ("--variants holistik", ConfigError, "--variants: no variant is called 'holistik' (choose"),
        ("--seeds 0 one", ConfigError, "--seeds: 'one' is no seed"),
        ("--run_name mine", ConfigError, "--run_name: run_all.sh sets it itself"),
        ("--resume auto", ConfigError, "--resume: run_all.sh sets it itself"),
        ("--runs a b", ConfigError, "--runs: run_all.sh sets it itself"),
        ("--run a", ConfigError, "--run: run_all.sh sets it itself"),
        ("--heads 3", ConfigError, "--heads: 3 heads do not divide"),
        ("--fold full", ConfigError, "--fold: full holds nothing out"),
        ("--all_data --fold 1", ConfigError, "--all_data: --fold 1 ranks with that fold's models"),
        ("--all_data yes", ConfigError, "--all_data: takes no value"),
        ("--all-data=1", ConfigError, "--all_data: takes no value"),
        ("--rerank yes", ConfigError, "--rerank: takes no value"),
        ("--rerank --members a.npz", ConfigError, "--rerank: does not go with --members"),
        ("--rerank --data_dir there", ConfigError, "--rerank: there is no test to rank"),
        ("--test_dir gone --data_dir there", DataError, "gone: no such folder"),
    ],
)
def test_flags_that_cannot_be_used_are_an_error_of_the_plan(
    home: Path, flags: str, error: type, message: str
) -> None:
    (home / "there").mkdir()
    with pytest.raises(error) as error_info:
        make_plan(flags.split())
    assert str(error_info.value).startswith(message)


def test_variants_and_seeds_decide_what_is_trained() -> None:
    plan = make_plan(["--variants", "clip", "sgar", "--seeds", "0", "3"])
    configs = [cli.parse_train(args, None)[0] for args in plan.args_of("train")]
    trained = [(config.variant, config.machine.seed) for config in configs]
    assert trained == [("clip", 0), ("clip", 3), ("sgar", 0), ("sgar", 3)]
    assert plan.run_names() == [config.run_name for config in configs]
    assert len(set(plan.run_names())) == 4
    assert takers(plan, "--runs", *plan.run_names()) == {"ensemble"}
    assert args_of(plan, "tune")[0] == "clip" and takers(plan, "--seeds", "0") == set()


def test_a_seed_changes_no_folds() -> None:
    plan = make_plan(["--seeds", "1", "2"])
    for args in plan.args_of("train"):
        config, _ = cli.parse_train(args, None)
        assert (config.fold_seed, config.folds) == (0, 3) and config.machine.seed in (1, 2)
    assert cli.parse(scripts.FoldConfig, args_of(plan, "make_folds"), None).fold_seed == 0


@pytest.mark.parametrize("fold", [[], ["--fold", "all"], ["--fold=all"]])
def test_all_data_trains_a_model_of_all_data_in_the_run_of_each_seeds_folds(
    fold: list[str],
) -> None:
    flags = ["--variants", "clip", "--seeds", "0", "3", *fold]
    plan, alone = make_plan([*flags, "--all_data"]), make_plan(flags)
    configs = [cli.parse_train(args, None)[0] for args in plan.args_of("train")]
    trained = [(config.fold, config.machine.seed, config.run_name) for config in configs]
    first, second = alone.run_names()
    assert trained == [
        *(("all", 0, first), ("full", 0, first)),
        *(("all", 3, second), ("full", 3, second)),
    ]
    assert plan.run_names() == [first, second]
    assert takers(plan, "--runs", first, second) == {"ensemble"}
    assert takers(plan, "--run", first, second) == {"report"}
    titles = [step.title for step in plan.steps if step.script == "train"]
    assert titles[2:] == ["train clip, seed 3", "train clip, seed 3, all data"]
    assert {step.chain for step in plan.steps if step.script == "train"} == {"clip"}


def test_rerank_scores_the_runs_that_have_tokens_and_the_ensemble_gets_their_files() -> None:
    flags = ["--variants", "holistic", "clip_readme", "--seeds", "0", "3", "--out_dir", "elsewhere"]
    plan = make_plan([*flags, "--rerank", "--epochs", "7", "--device", "cpu"])
    reranked = [name for name in plan.run_names() if name.startswith("holistic")]
    assert len(reranked) == 2 and len(plan.run_names()) == 4
    config = cli.parse(scripts.RerankConfig, args_of(plan, "rerank"), None)
    assert config.runs == tuple(reranked) and str(config.out_dir) == "elsewhere"
    assert config.epochs == scripts.RerankConfig.epochs and config.machine.device == "cpu"
    config = cli.parse(scripts.EnsembleConfig, args_of(plan, "ensemble"), None)
    files = [str(Path("elsewhere") / name / "likelihood.npz") for name in reranked]
    assert list(map(str, config.members)) == files
    order = [step.script for step in plan.steps]
    assert order.index("rerank") == order.index("ensemble") - 1
    assert "rerank" not in [step.script for step in make_plan(flags).steps]


def test_use_gar_alone_trains_the_variant_with_parts() -> None:
    plan = make_plan(["--use_gar"])
    (call,) = plan.args_of("train")
    config, _ = cli.parse_train(call, None)
    assert config.variant == "sgar" and config.parts.use_gar
    assert args_of(plan, "tune")[0] == "sgar"


def test_without_a_test_folder_it_ends_with_local_scores_and_a_report_and_says_so(
    home: Path,
) -> None:
    (home / "data").mkdir()
    plan = make_plan([])
    assert script_names(plan)[-2:] == ["validate", "report"]
    assert "ensemble" not in script_names(plan) and plan.submission() is None
    assert args_of(plan, "validate")[0] == "oof"
    assert any("no test folder" in note for note in plan.notes)


def test_the_number_of_folds_is_that_of_the_preset_unless_a_flag_gives_it() -> None:
    for flags, n_folds in (([], presets.PRESETS["fast"].values["folds"]), (["--folds", "4"], 4)):
        args = args_of(make_plan(flags), "make_folds")
        assert args.count("--folds") == 1
        assert cli.parse(scripts.FoldConfig, args, None).folds == n_folds


@pytest.mark.parametrize("tuned", ["none", "mine.json"])
def test_nothing_is_tuned_if_a_flag_names_the_values(tuned: str) -> None:
    plan = make_plan(["--tuned", tuned])
    assert "tune" not in script_names(plan) and takers(plan, "--tuned", tuned) == {"train"}
    config, _ = cli.parse_train(args_of(plan, "train"), None)
    assert config.tuned == tuned and takers(make_plan([]), "--tuned", "auto") == {"train"}


def test_the_file_to_upload_is_the_one_that_ensemble_writes() -> None:
    assert make_plan([]).submission() == "submissions/submission.csv"
    assert make_plan(["--out", "mine.csv"]).submission() == "mine.csv"


# ---- flags of the scripts


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--lr 3e-4", {"tune", "train"}),
        ("--max-minutes 10", {"train"}),
        ("--no_learn_tau", {"tune", "train"}),
        ("--text_tower=hf:folder", {"tune", "train"}),
        ("--trials 3", {"tune"}),
        ("--fold_jobs 2", {"tune", "train"}),
        ("--jobs 2", DATA_SCRIPTS - {"tune"}),
        ("--seed 1", DATA_SCRIPTS),
        ("--work_dir elsewhere", DATA_SCRIPTS),
        ("--no_rotations", DATA_SCRIPTS),
        ("--strict", DATA_SCRIPTS),
        ("--folds 4", {"make_folds", "tune", "train"}),
        ("--fold 0", {"train", "ensemble", "report"}),
        ("--pairs 50", {"report"}),
        ("--fold all", {"train"}),
        ("--log tensorboard", {"train"}),
        ("--candidate_format name", {"ensemble"}),
        ("--test_dir queries", {"ensemble", "validate"}),
        ("--gt truth.csv", {"validate"}),
        ("--verbose", {"validate"}),
        ("--debug", DATA_SCRIPTS | {"validate"}),
    ],
)
def test_a_flag_goes_to_the_scripts_that_know_it(flags: str, expected: set[str]) -> None:
    words = flags.split()
    assert takers(make_plan(words), *words) == expected


@pytest.mark.parametrize(
    ("flags", "submission"),
    [
        ("", "submissions/submission.csv"),
        (
            "--preset full --fold all --folds 4 --seed 3 --jobs 1 --device cpu --debug",
            "submissions/submission.csv",
        ),
        (
            "--fold 1 --max_minutes 2 --no_rotations --out mine.csv --candidate_format name"
            " --verbose",
            "mine.csv",
        ),
        (
            "--id_width 5 --strict --min_frames 8 --submissions_dir s --out_dir r --folds_dir f",
            "s/submission.csv",
        ),
    ],
)
def test_every_script_understands_its_step(flags: str, submission: str) -> None:
    for step in make_plan(flags.split()).steps:
        if step.script == "train":
            config, sources = cli.parse_train(step.args, None)
            assert config.resume == "same" and sources["run_name"] == "flag"
            assert config.preset in step.args
        elif step.script == "tune":
            tune_config, train_flags = cli.parse_tune(step.args, None)
            config, _ = cli.train_settings(train_flags)
            assert tune_config.preset == config.preset in step.args
            assert tune_config.out_dir == config.out_dir
        elif step.script == "validate":
            kinds = {"submission": scripts.SubmissionConfig}
            assert cli.parse_one_of(kinds, step.args, None).file == Path(submission)
            continue
        else:
            config = cli.parse(CONFIGS[step.script], step.args, None)
        if "--seed 3" in flags and step.script in DATA_SCRIPTS:
            assert config.machine.seed == 3


def test_no_flag_is_twice_in_a_command_and_the_last_value_counts(home: Path) -> None:
    with_test(home / "data")
    flags = "--lr 1e-3 --lr 2e-3 --folds 4 --seed 2 --seed 3 --jobs 1"
    plan = make_plan(flags.split())
    for step in plan.steps:
        names = [arg for arg in step.args if arg.startswith("--")]
        assert len(names) == len(set(names)), step.command()
    assert cli.parse_train(args_of(plan, "train"), None)[0].optim.lr == 2e-3


def test_a_command_can_be_pasted_into_a_shell() -> None:
    command = Step("pack", "prepare", ("--data_dir", "my data")).command()
    python, script, *args = shlex.split(command)
    assert shutil.which(python)
    assert (script, args) == ("solution/prepare.py", ["--data_dir", "my data"])


# ---- run names


def run_name(flags: str = "") -> str:
    return make_plan(flags.split()).run_names()[0]


def test_the_same_settings_have_the_same_run_name_and_other_settings_another() -> None:
    assert len({run_name(flags) for flags in ("", "--device cpu", "--jobs 1", "--debug")}) == 1
    others = ("", "--lr 1e-4", "--seed 1", "--epochs 3", "--preset full")
    assert len({run_name(flags) for flags in others}) == 5


def test_the_runs_that_are_trained_are_ensembled_and_reported() -> None:
    plan = make_plan([])
    assert takers(plan, "--run", *plan.run_names()) == {"report"}
    assert takers(plan, "--runs", *plan.run_names()) == {"ensemble"}


def test_other_data_have_other_run_names(home: Path) -> None:
    with_test(home / "one"), with_test(home / "two")
    name = run_name("--data_dir one")
    assert name == run_name(f"--data_dir {home / 'one'}") != run_name("--data_dir two")


# ---- running the plan


class Recorder:
    """Replaces subprocess.Popen: records the scripts and their arguments; some of them fail."""

    stdout = ()

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, command: list[str], **_options) -> "Recorder":
        script = Path(command[1])
        assert script.parent == base.ROOT / "solution"
        self.calls.append((script.stem, tuple(command[2:])))
        return self

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, _timeout: float | None = None) -> int:
        return self.codes.get(self.calls[-1][0], 0)

    @property
    def scripts(self) -> list[str]:
        return [script for script, _ in self.calls]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    popen = Recorder()
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr("motret.pipeline.plan.available_cores", lambda: 1)
    monkeypatch.setattr(preflight, "forecast", lambda *_: f"forecast after {len(popen.calls)}")
    return popen


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run"])
def test_a_dry_run_prints_the_commands_and_changes_nothing(
    home: Path, flag: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(home)
    assert run_all.main(["--lr", "3e-4", flag]) == 0
    note, heading, *commands = capsys.readouterr().out.splitlines()
    assert "no data/" in note and heading == "data work/sample, preset fast"
    expected = [
        [f"solution/{step.script}.py", *step.args] for step in make_plan(["--lr", "3e-4"]).steps
    ]
    assert [shlex.split(command)[1:] for command in commands] == expected
    assert recorder.calls == [] and contents(home) == before


def test_an_error_of_the_plan_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["--epoch", "3"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("error: --epoch: ")


def test_help_shows_the_commands_and_changes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(["--preset", "fast", "--help"]) == 0
    assert "bash run_all.sh --dry_run" in capsys.readouterr().out
    assert contents(home) == {"SETTINGS.json"}


def test_the_checks_come_before_the_first_step(home: Path, recorder: Recorder) -> None:
    write_data(home / "data", ["1", "2", "3"])
    with pytest.raises(WeightsError, match=r"--backbone_weights: gone.pt: no such file"):
        run_plan(make_plan(["--backbone_weights", "gone.pt"]))
    assert recorder.calls == []


def write_submission_log(home: Path, true_score: dict | None) -> None:
    """Two submissions in the log, the second with a JSON file."""
    folder = home / "submissions"
    folder.mkdir()
    rows = [(str(time), name, *[""] * 6) for time, name in enumerate(("old.csv", "new.csv"))]
    with (folder / "log.csv").open("w", newline="") as log:
        csv.writer(log).writerows([submission_log.COLUMNS, *rows])
    info = {
        "local_score": {"mean": 0.71234, "error": 0.02, "motions": 300},
        "expected_test_score": {"mean": 0.62, "error": 0.031},
        "true_score": true_score,
        "leaderboard_band": [0.61, 0.81],
        "gains": [{"over": "sgar", "mean": 0.0123, "error": 0.004}],
        "members": [
            {"run": name, "weight": 0.5, "local_score": {"mean": 0.7}} for name in ("sgar", "clip")
        ],
    }
    (folder / "new.json").write_text(json.dumps(info))


@pytest.mark.parametrize("true_score", [None, {"mean": 0.6543, "error": 0.06}])
def test_a_run_calls_the_scripts_in_order_and_ends_with_a_summary(
    home: Path, true_score: dict | None, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_submission_log(home, true_score)
    assert run_all.main(["--seed", "4"]) == 0
    plan = make_plan(["--seed", "4"])
    assert recorder.calls == [(step.script, step.args) for step in plan.steps]
    out = capsys.readouterr().out
    assert "forecast after 3" in out
    summary = " ".join(out.split("all done in")[1].split())
    for text in (
        "local score 0.7123 +- 0.0200",
        "leaderboard 0.61 to 0.81",
        "to expect 0.6200 +- 0.0310",
        "ensemble gain +0.0123 +- 0.0040 over sgar",
        "upload submissions/submission.csv",
        "open submissions/report/index.html",
        f"{run_name('--seed 4')}/report/index.html",
        "put the competition's data into data/",
    ):
        assert text in summary
    assert ("true score 0.6543 +- 0.0600" in summary) == (true_score is not None)


@pytest.mark.parametrize(
    ("fails", "code", "before"), [("sample", 1, 0), ("make_folds", 2, 2), ("ensemble", 1, 7)]
)
def test_a_run_stops_at_the_step_that_fails_and_returns_its_exit_code(
    fails: str, code: int, before: int, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.codes = {fails: code}
    assert run_all.main([]) == code
    assert recorder.scripts[-1] == fails and len(recorder.calls) == before + 1
    assert f"[{before + 1}/10] failed: " in capsys.readouterr().out


def test_a_script_that_was_interrupted_reports_it_itself(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.codes = {"tune": 130}
    assert run_all.main([]) == 130 and recorder.scripts[-1] == "tune"
    assert capsys.readouterr().err == ""


def test_a_report_that_fails_does_not_fail_the_run(
    home: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.codes = {"report": 1}
    write_submission_log(home, None)
    assert run_all.main([]) == 0
    out = capsys.readouterr().out
    assert "warning: draw the report failed" in out
    assert "upload" in out and "index.html" not in out.split("all done in")[1]
