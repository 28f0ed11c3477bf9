"""Scripts called without data: they use the generated challenge and make what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ensemble
import report
import search
import tune
import validate
from motret.config import base, cli
from motret.config.scripts import OofConfig, PrepareConfig, SceneConfig
from motret.pipeline import demo, steps
from motret.pipeline.plan import make_plan
from motret.utils import logs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository as current folder, whose generated challenge is a small one."""
    logs.show_logs()
    shutil.copy(ROOT / "SETTINGS.json", tmp_path)
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        demo, "SceneConfig", lambda: SceneConfig(motions=12, queries=1, candidates=4)
    )
    return tmp_path


class Recorder:
    """Replaces steps.run_steps: records which scripts would be called, and fails."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def __call__(self, needed: tuple[steps.Step, ...], _n_parallel: int) -> steps.StepsResult:
        self.scripts += [step.script for step in needed]

        return steps.StepsResult(1)


def test_without_data_the_arguments_name_the_generated_challenge(empty: Path) -> None:
    sample = ["--data_dir", "work/sample"]
    with_demo_data = demo.with_demo_data
    assert with_demo_data(["--top", "3"]) == (["--top", "3", *sample], True)
    assert with_demo_data(["sgar"], True) == (["sgar", *sample, "--preset", "fast"], True)
    assert with_demo_data(["--preset=full"], True) == (["--preset=full", *sample], True)
    for args in (["--data_dir", "mine"], ["--data-dir=mine"], ["--help"], ["-h"]):
        assert with_demo_data(args) == (args, False)
    (empty / "data").mkdir()
    assert with_demo_data([], True) == ([], False)


def test_the_challenge_is_made_in_the_work_folder_and_one_line_says_so(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.make_missing(PrepareConfig())
    assert (empty / "work" / "sample" / "train.txt").is_file()
    printed = capsys.readouterr().out
    assert printed.startswith("no data/ here: using the generated challenge in work/sample")
    assert printed.count("\n") == 1


def test_a_data_folder_that_a_flag_names_is_not_made(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate.main(["make_batches", "--data_dir", "work/sample"]) == 1
    assert not (empty / "work" / "sample").exists()
    assert "work/sample: no such folder" in capsys.readouterr().err


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("main", "args"),
    [
        (ensemble.main, []),
        (report.main, []),
        (search.main, []),
        (validate.main, []),
        (validate.main, ["--verbose"]),
    ],
)
def test_scripts_that_need_runs_train_what_run_all_would(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main,
    args: list[str],
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(steps, "run_steps", recorder)
    assert main(args) == 1
    assert recorder.scripts == ["prepare", "make_folds", "tune", "train", "train", "train"]
    assert (
        "no finished run yet: training the models that run_all.sh trains" in capsys.readouterr().out
    )


def test_with_runs_nothing_is_trained(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(steps, "run_steps", recorder)
    (empty / "runs" / "one" / "fold0").mkdir(parents=True)
    (empty / "runs" / "one" / "fold0" / "oof.npz").touch()
    demo.make_missing(OofConfig(), needs_runs=True)
    demo.make_missing(OofConfig(out_dir=Path("other"), runs=("one",)), needs_runs=True)
    assert recorder.scripts == []


@pytest.mark.usefixtures("empty")
def test_flags_of_the_script_hold_for_the_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    monkeypatch.setattr(demo, "make_plan", lambda args: plans.append(args) or make_plan(args))
    monkeypatch.setattr(steps, "run_steps", lambda *_: steps.StepsResult(0))
    args = ["--out_dir", "other", "--device", "cpu", "--debug", "--verbose", "--seed", "3"]
    demo.make_missing(cli.parse(OofConfig, args, None), needs_runs=True)
    assert plans == [["--out_dir=other", "--device=cpu", "--debug"]]


def test_a_wrong_flag_makes_nothing(empty: Path) -> None:
    for main in (tune.main, validate.main, ensemble.main):
        with pytest.raises(SystemExit) as exit_info:
            main(["--color", "red"])
        assert exit_info.value.code == 2
    assert not (empty / "work").exists()


def test_a_script_typed_alone_in_a_fresh_clone_works(tmp_path: Path) -> None:
    for name in ("SETTINGS.json", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "solution", tmp_path / "solution", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "solution/make_folds.py"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "using the generated challenge in work/sample" in done.stdout and "\r" not in done.stderr
    assert (tmp_path / "folds" / "folds.csv").is_file()
