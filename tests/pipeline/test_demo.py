"""Scripts typed alone, without data: they take the generated challenge, make what is missing of it, and say so."""

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
from motret.config import base
from motret.config.scripts import SceneConfig
from motret.pipeline import demo, steps

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository to stand in, whose generated challenge is a small one."""
    shutil.copy(ROOT / "SETTINGS.json", tmp_path)
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SceneConfig", lambda: SceneConfig(motions=12, queries=1, candidates=4))
    return tmp_path


class Recorder:
    """Stands in for steps.run: notes which scripts would be called, and fails."""

    def __init__(self) -> None:
        self.scripts: list[str] = []

    def __call__(self, needed: tuple[steps.Step, ...], side_by_side: int) -> steps.StepResult:
        self.scripts += [step.script for step in needed]
        return steps.StepResult(1)


def test_without_data_the_arguments_name_the_generated_challenge(empty: Path) -> None:
    sample = ["--data_dir", "work/sample"]
    assert demo.with_data(["--top", "3"]) == ["--top", "3", *sample]
    assert demo.with_data(["sgar"], takes_preset=True) == ["sgar", *sample, "--preset", "fast"]
    assert demo.with_data(["--preset=full"], takes_preset=True) == ["--preset=full", *sample]
    for kept in (["--data_dir", "mine"], ["--data-dir=mine"], ["--help"], ["-h"]):
        assert demo.with_data(kept) == kept
    (empty / "data").mkdir()
    assert demo.with_data([], takes_preset=True) == []


def test_the_challenge_is_made_only_where_nobody_named_data(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.make_missing(["--data_dir", "work/sample"], ["--data_dir", "work/sample"])
    assert not (empty / "work").exists() and capsys.readouterr().out == ""
    demo.make_missing(demo.with_data([]), [])
    assert (empty / "work" / "sample" / "train.txt").is_file()
    printed = capsys.readouterr().out
    assert printed.startswith("no data/ here: using the generated challenge in work/sample") and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("main", "args"), [(ensemble.main, []), (report.main, []), (search.main, []), (validate.main, []), (validate.main, ["--verbose"])]
)
def test_scripts_that_need_runs_train_what_run_all_would(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], main, args: list[str]
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(steps, "run_steps", recorder)
    assert main(args) == 1
    assert recorder.scripts == ["prepare", "make_folds", "tune", "train", "train", "train"]
    assert "no finished run yet: training the models that run_all.sh trains" in capsys.readouterr().out


def test_with_runs_nothing_is_trained(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(steps, "run_steps", recorder)
    (empty / "runs" / "one" / "fold0").mkdir(parents=True)
    (empty / "runs" / "one" / "fold0" / "oof.npz").touch()
    demo.make_missing(demo.with_data([]), [], runs=True)
    named = ["--out_dir", "other", "--runs", "one"]
    demo.make_missing(demo.with_data(named), named, runs=True)
    assert recorder.scripts == []


def test_a_wrong_flag_makes_nothing(empty: Path) -> None:
    for main in (tune.main, validate.main, ensemble.main):
        with pytest.raises(SystemExit) as ended:
            main(["--colour", "red"])
        assert ended.value.code == 2
    assert not (empty / "work").exists()


def test_a_script_typed_alone_in_a_fresh_clone_works(tmp_path: Path) -> None:
    for name in ("SETTINGS.json", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "solution", tmp_path / "solution", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "solution/make_folds.py"]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=surroundings, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "using the generated challenge in work/sample" in ended.stdout and "\r" not in ended.stderr
    assert (tmp_path / "folds" / "folds.csv").is_file()


def test_packages_that_are_missing_are_one_line_with_the_command_that_gets_them(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "solution" / "motret", tmp_path / "solution" / "motret", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "solution" / "tune.py", tmp_path / "solution")
    (tmp_path / "requirements.txt").write_text("# a comment\ntorch==1\nno-such-package==1.0\n")
    ended = subprocess.run([sys.executable, "solution/tune.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "has no no-such-package (" in ended.stderr and "-m pip install -r" in ended.stderr
