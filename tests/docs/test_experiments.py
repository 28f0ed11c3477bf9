"""The programs in docs/experiments, with which docs/ablation.md measures what is not built in."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import helpers

EXPERIMENTS = Path(__file__).parents[2] / "docs" / "experiments"


def run_experiment(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXPERIMENTS / name, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small challenge, `whole`."""
    folder = tmp_path_factory.mktemp("runs")
    assert helpers.run_training(folder, "whole") == 0
    return folder


def without_fold(folder: Path, fold: int) -> Path:
    """The training data without the motions that a fold holds out, as docs/ablation.md makes it."""
    data = helpers.challenge()
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("test"))
    with (data.with_name(f"{data.name}-folds") / "folds.csv").open(newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream) if row["fold"] != str(fold)]
    (folder / "train.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return folder


def test_cross_attention_prints_its_gain_and_writes_both_submissions(
    out_dir: Path, tmp_path: Path
) -> None:
    inner = without_fold(tmp_path / "inner", 0)
    assert helpers.run_training(out_dir, "inner", inner) == 0
    places = [flag for flag in helpers.places() if "_dir" in flag]
    runs = "--run", out_dir / "whole", "--inner", out_dir / "inner"
    done = run_experiment("cross_attention.py", *places, *runs, "--epochs=1", "--width=8")
    assert done.returncode == 0, done.stderr
    gains = re.findall(r"weight (\S+): 0\.\d{4} \+- 0\.\d{4} \(([+-]\S+) \+- \S+\)", done.stdout)
    assert [weight for weight, _ in gains] == ["0", "0.5", "1", "2"] and gains[0][1] == "+0.0000"
    for name in ("alone", "corrected"):
        lines = (out_dir / "whole" / f"{name}.csv").read_text().splitlines()
        assert len(lines) == 4


def test_a_student_learns_from_its_teachers(out_dir: Path) -> None:
    flags = helpers.train_flags(out_dir, "student", fold=0, epochs=1)
    done = run_experiment("distill.py", out_dir / "whole", "--", *flags)
    assert done.returncode == 0, done.stderr
    with (out_dir / "student" / "fold0" / "metrics.csv").open(newline="") as stream:
        (epoch,) = csv.DictReader(stream)
    both = float(epoch["loss_global"]) + float(epoch["loss_teachers"])
    assert float(epoch["loss_teachers"]) > 0
    assert float(epoch["train_loss"]) == pytest.approx(both, abs=1e-4)


def test_a_student_without_teachers_is_one_line() -> None:
    done = run_experiment("distill.py", "holistic")
    assert done.returncode == 1 and "no teachers" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
