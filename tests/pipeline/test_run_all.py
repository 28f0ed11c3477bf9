"""`bash run_all.sh` from data to submission, and again."""

import os
import subprocess
import sys
from pathlib import Path

import sample
from motret.config import base
from motret.formats import submission
from motret.formats.queries import read_queries

ROOT = Path(__file__).parents[2]
SMALL = (
    "--preset fast --folds 2 --epochs 1 --width 16 --heads 2 --text_width 64 --proj_dim 16"
    " --layers 1 --cross_person_layers 0 --jobs 1 --trials 2"
)


def run_all(*args: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", str(ROOT / "run_all.sh"), *args],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_one_command_goes_from_data_to_a_submission_and_a_second_run_reuses_it(
    tmp_path: Path,
) -> None:
    data, submissions = tmp_path / "data", tmp_path / "submissions_dir"
    sizes = ["--motions", "20", "--queries", "2", "--candidates", "12"]
    assert sample.main(["--out", str(data), *sizes]) == 0
    folders = [f"--{name}={tmp_path / name}" for name in base.WRITTEN_FOLDERS]
    first = run_all("--data_dir", str(data), *SMALL.split(), *folders)
    assert first.returncode == 0, first.stdout + first.stderr
    printed = " ".join(first.stdout.split())
    upload = f"upload {submissions / 'submission.csv'}"
    for text in ("forecast: about", "local score", "true score", upload):
        assert text in printed
    assert (submissions / "report" / "index.html").is_file()
    assert "\r" not in first.stdout + first.stderr
    queries = read_queries(data / "test")
    answers = submission.read_submission(submissions / "submission.csv", queries)
    assert set(answers) == {"1", "2"}

    again = run_all("--data_dir", str(data), *SMALL.split(), *folders)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "features as packed before" in again.stdout
    assert again.stdout.count("finished before: fold0, fold1") == 3
    assert len(list((tmp_path / "out_dir").glob("*/args.json"))) == 3
    assert (
        "tuned" in again.stdout
        and (tmp_path / "out_dir" / "tune" / "holistic" / "best.json").is_file()
    )


def test_data_that_cannot_be_read_are_one_line_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "data" / "motions").mkdir(parents=True)
    done = run_all(
        "--data_dir",
        str(tmp_path / "data"),
        "--work_dir",
        str(tmp_path / "work"),
        "--preset",
        "fast",
    )
    assert done.returncode == 1
    assert f"error: {tmp_path / 'data'}" in done.stderr
    assert "check and pack the data" not in done.stdout
    assert "Traceback" not in done.stderr
