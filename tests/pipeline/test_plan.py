"""The plan of run_all.sh: its data, models, flags and checks; and that planning changes nothing."""

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import run_all
from helpers import motion, write_data
from motret.config import base, cli, presets, training
from motret.config.scripts import (
    EnsembleConfig,
    FoldConfig,
    PrepareConfig,
    ReportConfig,
    SampleConfig,
    SubmissionConfig,
)
from motret.errors import ConfigError, DataError, WeightsError
from motret.formats import submission_log
from motret.pipeline import preflight, steps
from motret.pipeline.plan import Plan, make_plan, run_plan
from motret.pipeline.steps import Step
from motret.utils import logs, network

KINDS = {
    "sample": SampleConfig,
    "prepare": PrepareConfig,
    "make_folds": FoldConfig,
    "ensemble": EnsembleConfig,
    "report": ReportConfig,
}


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
    """A data folder that has queries, as far as a plan looks."""
    (data / "test").mkdir(parents=True)
    return data


def scripts(plan: Plan) -> list[str]:
    return [step.script for step in plan.steps]


def args_of(plan: Plan, script: str) -> tuple[str, ...]:
    step = next(
        step for step in plan.steps if step.script == script
    )  # of several, as of several variants, the first
    return step.args


def takers(plan: Plan, *words: str) -> set[str]:
    """The scripts whose arguments hold these words, one after the other."""
    text = " ".join(words)
    return {step.script for step in plan.steps if f" {text} " in f" {' '.join(step.args)} "}


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- what it runs on


def test_without_data_it_runs_on_a_generated_challenge_quickly_and_says_so() -> None:
    plan = make_plan([])
    assert (plan.data_dir, plan.preset) == (Path("work/sample"), "fast")
    assert scripts(plan) == [
        "sample",
        "prepare",
        "make_folds",
        "tune",
        *["train"] * 3,
        "ensemble",
        "validate",
        "report",
    ]
    (note,) = plan.notes
    assert "\n" not in note and "no data/" in note and "work/sample" in note
    assert takers(plan, "--data_dir", "work/sample") == set(scripts(plan)) - {"sample"}
    assert args_of(plan, "sample") == ("--out", "work/sample")


def test_the_fast_preset_shows_three_different_models_and_a_study() -> None:
    runs = [cli.parse_train(args, None)[0] for args in make_plan([]).args_of("train")]
    assert [run.variant for run in runs] == ["holistic", "sgar", "clip"]
    assert len({(run.motion, run.text, run.parts.use_gar) for run in runs}) == 3
    assert [run.text.text_pool for run in runs] == ["mean", "mean", "end"]
    tune_config, _ = cli.parse_tune(make_plan([]).args_of("tune")[0], None)
    assert tune_config.variants == ("holistic",) and tune_config.trials >= 8
    assert takers(make_plan([]), "--views", "mirror") == {"ensemble"}
    assert takers(make_plan(["--views", "none"]), "--views", "mirror") == set()


def test_with_data_it_runs_on_them_in_full(home: Path) -> None:
    with_test(home / "data")
    plan = make_plan([])
    assert (plan.data_dir, plan.preset, plan.notes) == (Path("data"), "full", ())
    assert scripts(plan) == [
        "prepare",
        "make_folds",
        "tune",
        "train",
        "train",
        "train",
        "ensemble",
        "validate",
        "report",
    ]
    assert [step.args[0] for step in plan.steps if step.script == "train"] == [
        "holistic",
        "sgar",
        "clip",
    ]
    assert takers(plan, "--data_dir", "data") == set(scripts(plan))
    assert takers(plan, "--preset", "full") == {"tune", "train"}


@pytest.mark.parametrize(
    "flags", [["--data_dir", "pairs"], ["--data-dir", "pairs"], ["--data_dir=pairs"]]
)
def test_a_data_folder_that_is_named_wins(home: Path, flags: list[str]) -> None:
    (home / "data").mkdir()
    with_test(home / "pairs")
    plan = make_plan(flags)
    assert (plan.data_dir, plan.preset) == (Path("pairs"), "full") and takers(
        plan, "--data_dir", "pairs"
    ) == set(scripts(plan))


def test_a_preset_that_is_named_wins(home: Path) -> None:
    assert make_plan(["--preset", "full"]).preset == "full"
    with_test(home / "data")
    plan = make_plan(["--preset=fast"])
    assert plan.preset == "fast" and takers(
        plan, "--folds", str(presets.PRESETS["fast"].values["folds"])
    ) == {"make_folds"}


@pytest.mark.parametrize(
    ("flags", "fault", "said"),
    [
        (["--data_dir", "gone"], DataError, "gone: no such folder"),
        (["--preset", "huge"], ConfigError, "--preset: no preset is called 'huge'"),
        (["--preset"], ConfigError, "--preset: no value"),
        (["fast"], ConfigError, "run_all.sh: 'fast' is no flag"),
        (
            ["--epoch", "3"],
            ConfigError,
            "--epoch: no script knows this flag (did you mean --epochs",
        ),
        (
            ["--batchsize", "3"],
            ConfigError,
            "--batchsize: no script knows this flag (did you mean --batch_size",
        ),
        (["--zzzzzz"], ConfigError, "--zzzzzz: no script knows this flag (see "),
        (
            ["--variants", "holistik"],
            ConfigError,
            "--variants: no variant is called 'holistik' (choose from holistic, ",
        ),
        (["--seeds", "0", "one"], ConfigError, "--seeds: 'one' is no seed"),
        (["--run_name", "mine"], ConfigError, "--run_name: run_all.sh sets it itself"),
        (["--resume", "auto"], ConfigError, "--resume: run_all.sh sets it itself"),
        (["--runs", "a", "b"], ConfigError, "--runs: run_all.sh sets it itself"),
        (["--run", "a"], ConfigError, "--run: run_all.sh sets it itself"),
        (["--heads", "3"], ConfigError, "--heads: 3 heads do not divide"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    flags: list[str], fault: type, said: str
) -> None:
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
def test_a_flag_goes_to_the_scripts_that_know_it(
    flags: list[str], scripts_that_take_it: set[str]
) -> None:
    assert takers(make_plan(flags), *flags) == scripts_that_take_it


@pytest.mark.parametrize(
    ("flags", "answers"),
    [
        ([], Path("submissions/submission.csv")),
        (
            [
                "--preset",
                "full",
                "--fold",
                "all",
                "--folds",
                "4",
                "--seed",
                "3",
                "--jobs",
                "1",
                "--device",
                "cpu",
                "--debug",
            ],
            Path("submissions/submission.csv"),
        ),
        (
            [
                "--fold",
                "1",
                "--max_minutes",
                "2",
                "--no_rotations",
                "--out",
                "mine.csv",
                "--candidate_format",
                "name",
                "--verbose",
            ],
            Path("mine.csv"),
        ),
        (
            [
                "--id_width",
                "5",
                "--strict",
                "--min_frames",
                "8",
                "--submissions_dir",
                "s",
                "--out_dir",
                "r",
                "--folds_dir",
                "f",
            ],
            Path("s/submission.csv"),
        ),
    ],
)
def test_every_script_understands_its_step(flags: list[str], answers: Path) -> None:
    for step in make_plan(flags).steps:
        if step.script == "train":
            config, sources = cli.parse_train(step.args, None)
            assert (
                config.resume == "same"
                and sources["run_name"] == "flag"
                and config.preset in step.args
            )
        elif step.script == "tune":
            tune_config, train_flags = cli.parse_tune(step.args, None)
            config, _ = cli.train_settings(train_flags)
            assert tune_config.preset == config.preset in step.args
            assert tune_config.out_dir == config.out_dir
        elif step.script == "validate":
            config = cli.parse_one_of({"submission": SubmissionConfig}, step.args, None)
            assert config.file == answers
        else:
            config = cli.parse(KINDS[step.script], step.args, None)
        if "--seed" in flags and step.script in DATA_SCRIPTS:
            assert config.machine.seed == 3


def test_variants_and_seeds_choose_what_is_trained() -> None:
    plan = make_plan(["--variants", "clip", "sgar", "--seeds", "0", "3"])
    runs = [cli.parse_train(args, None)[0] for args in plan.args_of("train")]
    assert [(run.variant, run.machine.seed) for run in runs] == [
        ("clip", 0),
        ("clip", 3),
        ("sgar", 0),
        ("sgar", 3),
    ]
    assert len({run.run_name for run in runs}) == 4
    assert takers(plan, "--runs", *(run.run_name for run in runs)) == {"ensemble"}
    assert plan.args_of("tune")[0][0] == "clip" and takers(plan, "--seeds", "0") == set()


def test_use_gar_alone_trains_the_variant_that_learns_from_parts() -> None:
    plan = make_plan(["--use_gar"])
    (call,) = plan.args_of("train")
    config, _ = cli.parse_train(call, None)
    assert (
        config.variant == "sgar" and config.parts.use_gar and plan.args_of("tune")[0][0] == "sgar"
    )


def test_no_flag_stands_twice_in_a_command(home: Path) -> None:
    with_test(home / "data")
    plan = make_plan(
        [
            "--lr",
            "1e-3",
            "--lr",
            "2e-3",
            "--folds",
            "4",
            "--seed",
            "2",
            "--seed",
            "3",
            "--jobs",
            "1",
        ]
    )
    for step in plan.steps:
        names = [arg for arg in step.args if arg.startswith("--")]
        assert len(names) == len(set(names)), step.command()
    assert cli.parse_train(plan.args_of("train")[0], None)[0].optim.lr == 2e-3


def test_without_a_test_folder_it_ends_with_local_scores_and_a_report_and_says_so_first(
    home: Path,
) -> None:
    (home / "data").mkdir()
    plan = make_plan([])
    assert scripts(plan)[-2:] == ["validate", "report"] and "ensemble" not in scripts(plan)
    assert args_of(plan, "validate")[0] == "oof" and any(
        "no test folder" in note for note in plan.notes
    )
    with pytest.raises(DataError, match="gone: no such folder"):
        make_plan(["--test_dir", "gone"])


def test_the_number_of_folds_is_the_presets_unless_it_is_given() -> None:
    assert args_of(make_plan([]), "make_folds").count("--folds") == 1
    assert (
        cli.parse(FoldConfig, args_of(make_plan([]), "make_folds"), None).folds
        == presets.PRESETS["fast"].values["folds"]
    )
    given = args_of(make_plan(["--folds", "4"]), "make_folds")
    assert given.count("--folds") == 1 and cli.parse(FoldConfig, given, None).folds == 4


def test_a_command_can_be_pasted_into_a_shell() -> None:
    command = Step("pack", "prepare", ("--data_dir", "my data")).command()
    python, script, *args = shlex.split(command)
    assert (
        script == "solution/prepare.py"
        and args == ["--data_dir", "my data"]
        and shutil.which(python)
    )


# ---- run names


def run_name(*flags: str) -> str:
    args = args_of(make_plan(flags), "train")
    return args[args.index("--run_name") + 1]


def test_the_same_command_finds_its_run_again_and_another_makes_another() -> None:
    assert (
        run_name()
        == run_name()
        == run_name("--device", "cpu")
        == run_name("--jobs", "1")
        == run_name("--debug")
    )
    assert (
        len(
            {
                run_name(),
                run_name("--lr", "1e-4"),
                run_name("--seed", "1"),
                run_name("--epochs", "3"),
                run_name("--preset", "full"),
            }
        )
        == 5
    )


def test_the_runs_that_are_trained_are_averaged_and_reported() -> None:
    plan = make_plan([])
    assert takers(plan, "--run", run_name()) == {"report"} and takers(
        plan, "--runs", run_name()
    ) == {"ensemble"}
    assert not set("<>") & set(run_name())


def test_another_data_folder_makes_another_run(home: Path) -> None:
    with_test(home / "one"), with_test(home / "two")
    assert (
        run_name("--data_dir", "one")
        == run_name("--data_dir", str(home / "one"))
        != run_name("--data_dir", "two")
    )


@pytest.mark.parametrize("which", ["none", "mine.json"])
def test_nothing_is_tuned_where_it_is_said_what_to_take(which: str) -> None:
    plan = make_plan(["--tuned", which])
    assert "tune" not in scripts(plan) and takers(plan, "--tuned", which) == {"train"}
    config, _ = cli.parse_train(args_of(plan, "train"), None)
    assert config.tuned == which and takers(make_plan([]), "--tuned", "auto") == {"train"}


# ---- doing it


class Recorder:
    """Replaces subprocess.Popen: records the scripts and their arguments; some of them fail."""

    def __init__(self, codes: dict[str, int] | None = None):
        self.codes, self.calls = codes or {}, []

    def __call__(self, command: list[str], **_how) -> "Recorder":
        script = Path(command[1])
        assert script.parent == base.ROOT / "solution"
        self.calls.append((script.stem, tuple(command[2:])))
        return self

    def wait(self) -> int:
        return self.codes.get(self.calls[-1][0], 0)

    stdout = ()

    @property
    def scripts(self) -> list[str]:
        return [script for script, _ in self.calls]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    popen = Recorder()
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(steps, "available_cores", lambda: 1)
    monkeypatch.setattr(preflight, "forecast", lambda *_: f"forecast after {len(popen.calls)}")
    return popen


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run"])
def test_a_dry_run_prints_the_commands_and_does_nothing(
    home: Path, flag: str, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(home)
    assert run_all.main(["--lr", "3e-4", flag]) == 0
    note, about, *commands = capsys.readouterr().out.splitlines()
    assert "no data/" in note and about == "data work/sample, preset fast"
    plan = make_plan(["--lr", "3e-4"])
    assert [shlex.split(command)[1:] for command in commands] == [
        [f"solution/{step.script}.py", *step.args] for step in plan.steps
    ]
    assert recorder.calls == [] and contents(home) == before


def test_a_plan_that_cannot_be_made_is_one_line(
    capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(["--epoch", "3"]) == 1
    captured = capsys.readouterr()
    assert (
        captured.out == ""
        and captured.err.startswith("error: --epoch: ")
        and captured.err.count("\n") == 1
    )


def test_help_is_the_scripts_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["--preset", "fast", "--help"]) == 0
    assert "bash run_all.sh --dry_run" in capsys.readouterr().out and contents(home) == {
        "SETTINGS.json"
    }


def write_log(home: Path, true_score: dict | None) -> None:
    (home / "submissions").mkdir()
    with (home / "submissions" / "log.csv").open("w", newline="") as log:
        csv.writer(log).writerows(
            [
                submission_log.COLUMNS,
                *((str(time), name, *[""] * 6) for time, name in enumerate(("old.csv", "new.csv"))),
            ]
        )
    about = {
        "local_score": {"mean": 0.71234, "error": 0.02, "motions": 300},
        "true_score": true_score,
        "leaderboard_band": [0.61, 0.81],
        "gains": [{"over": "sgar", "mean": 0.0123, "error": 0.004}],
        "members": [
            {"run": name, "weight": 0.5, "local_score": {"mean": 0.7}} for name in ("sgar", "clip")
        ],
    }
    (home / "submissions" / "new.json").write_text(json.dumps(about))


@pytest.mark.parametrize("true_score", [None, {"mean": 0.6543, "error": 0.06}])
def test_a_run_calls_the_scripts_in_order_and_ends_with_a_summary(
    home: Path, true_score: dict | None, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(home, true_score)
    assert run_all.main(["--seed", "4"]) == 0
    plan = make_plan(["--seed", "4"])
    assert recorder.calls == [(step.script, step.args) for step in plan.steps]
    out = capsys.readouterr().out
    assert "forecast after 3" in out
    summary = " ".join(out.split("all done in")[1].split())
    for shown in (
        "local score 0.7123 +- 0.0200",
        "leaderboard 0.61 to 0.81",
        "ensemble gain +0.0123 +- 0.0040 over sgar",
        "upload submissions/submission.csv",
        "open submissions/report/index.html",
        f"{run_name('--seed', '4')}/report/index.html",
        "put the competition's data into data/",
    ):
        assert shown in summary
    assert ("true score 0.6543 +- 0.0600" in summary) == (true_score is not None)


@pytest.mark.parametrize(
    ("fails", "code", "before"), [("sample", 1, 0), ("make_folds", 2, 2), ("ensemble", 1, 7)]
)
def test_a_run_stops_at_the_step_that_fails_and_hands_on_its_exit_code(
    fails: str,
    code: int,
    before: int,
    recorder: Recorder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorder.codes = {fails: code}
    assert run_all.main([]) == code
    assert recorder.scripts[-1] == fails and len(recorder.calls) == before + 1
    assert f"[{before + 1}/10] failed: " in capsys.readouterr().out


def test_a_script_that_was_stopped_has_said_so_itself(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.codes = {"tune": 130}
    assert run_all.main([]) == 130 and recorder.scripts[-1] == "tune"
    assert capsys.readouterr().err == ""


def test_a_report_that_fails_does_not_fail_the_run(
    home: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.codes = {"report": 1}
    write_log(home, None)
    assert run_all.main([]) == 0
    captured = capsys.readouterr()
    assert "warning: draw the report failed" in captured.out
    assert "upload" in captured.out and "index.html" not in captured.out.split("all done in")[1]


# ---- what is checked before it starts


def no_network(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(network, "hub_reachable", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setenv("HOME", str(home))


def test_weights_that_cannot_be_had_are_missed_before_anything_is_done(
    home: Path,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_network(monkeypatch, home)
    write_data(home / "data", ["1", "2", "3"])
    for flags in ([], ["--dry_run"], ["--text_tower", "hf:nobody/nothing"]):
        assert run_all.main(flags) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "cannot be reached" in error and "--text_" in error
    assert recorder.calls == []
    assert run_all.main(["--text_weights", "none", "--dry_run"]) == 0


def test_the_weights_that_are_missing_are_where_open_clip_takes_them_from() -> None:
    import open_clip

    text = training.TextConfig()
    assert (
        open_clip.get_pretrained_cfg(text.text_tower, text.text_weights)["hf_hub"].strip("/")
        == preflight.DEFAULT_WEIGHTS
    )


def test_a_backbone_file_that_is_not_there_is_missed_before_anything_is_done(
    home: Path, recorder: Recorder
) -> None:
    write_data(home / "data", ["1", "2", "3"])
    with pytest.raises(WeightsError, match=r"--backbone_weights: gone.pt: no such file"):
        run_plan(make_plan(["--backbone_weights", "gone.pt"]))
    assert recorder.calls == []


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_is_done(
    home: Path, recorder: Recorder
) -> None:
    (home / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot be written to .* --out_dir"):
        run_plan(make_plan(["--out_dir", "file/runs"]))
    assert recorder.calls == []


def test_a_disk_that_is_too_full_is_found_before_anything_is_done(
    home: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(home / "data", ["1", "2", "3"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"GB, 0\.0 GB are free \(free some space"):
        run_plan(make_plan(["--preset", "fast"]))
    assert recorder.calls == []


def test_data_that_cannot_be_read_are_found_before_anything_is_done(
    home: Path, recorder: Recorder
) -> None:
    with_test(write_data(home / "data", ["1", "2", "3"]))
    with pytest.raises(DataError, match="test"):  # no query in it
        run_plan(make_plan(["--preset", "fast"]))
    shutil.rmtree(home / "data" / "texts")
    with pytest.raises(DataError, match="texts: no such folder"):
        run_plan(make_plan(["--preset", "fast"]))
    assert recorder.calls == []


def test_what_is_checked_knows_the_width_of_ids_and_runs_that_are_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(home / "data", ["1", "2", "3"])
    calls = []
    read = preflight.dataset.read_training
    monkeypatch.setattr(
        preflight.dataset,
        "read_training",
        lambda root, **how: calls.append(how) or read(root, **how),
    )
    plan = make_plan(["--preset", "fast", "--id_width", "4", "--variants", "holistic"])
    preflight.check_before_run(plan.data_dir, plan.test_dir, plan.folders, plan.args_of("train"))
    assert calls == [{"id_width": 4}]
    free = int(preflight.SPARE_BYTES + 10e6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": free})())
    with pytest.raises(DataError, match="needs about"):
        preflight.check_before_run(
            plan.data_dir, plan.test_dir, plan.folders, plan.args_of("train")
        )
    (call,) = plan.args_of("train")
    (home / "runs" / call[call.index("--run_name") + 1]).mkdir(parents=True)
    preflight.check_before_run(plan.data_dir, plan.test_dir, plan.folders, plan.args_of("train"))


def test_the_file_to_upload_is_the_one_that_was_asked_for(home: Path) -> None:
    assert (
        make_plan([]).submission() == "submissions/submission.csv"
        and make_plan(["--out", "mine.csv"]).submission() == "mine.csv"
    )
    (home / "data").mkdir()
    assert make_plan([]).submission() is None


# ---- the forecast


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a million operations a second."""
    monkeypatch.setattr(preflight, "_matrix_rate", lambda: 1e6)


def forecast(*flags: str) -> str:
    plan = make_plan(flags)
    return preflight.forecast(plan.data_dir, plan.args_of("train"), plan.args_of("tune"))


@pytest.mark.usefixtures("slow")
def test_a_time_limit_bounds_the_forecast(home: Path) -> None:
    write_data(home / "data", ["1", "2", "3", "4"])
    limit = ["--max_minutes", "2"]
    for flags, shown in (  # for three variants
        ([*limit, "--folds", "3", "--tuned", "none"], "18 min"),
        ([*limit, "--fold", "0", "--tuned", "none"], "6 min"),
        ([*limit, "--fold", "0"], f"{6 + presets.PRESETS['full'].tuning['max_minutes']:.0f} min"),
    ):
        assert forecast(*flags).startswith(f"forecast: about {shown} ")
    assert " h on this machine" in forecast()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("persons", [1, 2])
def test_broken_files_do_not_stop_the_forecast(home: Path, persons: int) -> None:
    motions = {str(number): motion(20, persons, number) for number in range(1, 5)}
    root = write_data(home / "data", motions)
    before = forecast()
    for number in (1, 4):
        (root / "motions" / f"{number}.npy").write_bytes(b"")
    assert forecast() == before
    for number in (2, 3):
        np.save(root / "motions" / f"{number}.npy", np.zeros((20, 5)))
    with pytest.raises(DataError, match="no readable motion"):
        forecast()


def test_a_run_that_holds_nothing_out_is_refused_before_it_starts() -> None:
    with pytest.raises(ConfigError, match="--fold: full holds nothing out"):
        make_plan(["--fold", "full"])
