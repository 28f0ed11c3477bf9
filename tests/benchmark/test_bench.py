"""The script bench.py from end to end, on tiny sizes."""

import contextlib
import io
import shutil
import sys
from pathlib import Path

import pytest

import bench
import ensemble
import helpers
import train
from motret.benchmark import memory as memory_module
from motret.benchmark import subprocesses
from motret.benchmark.subprocesses import SubprocessError, TimedProcess

MODEL = {
    "width": 16,
    "heads": 2,
    "layers": 1,
    "cross_person_layers": 0,
    "proj_dim": 8,
    "amp": "off",
    "batch_size": 8,
    "epochs": 2,
}


def run_bench(tmp_path, *only, data=None, code=0, **values):
    flags = helpers.flags(
        out=tmp_path / "page.md",
        work_dir=tmp_path / "work",
        quick=True,
        device="cpu",
        jobs=1,
        **values,
    )
    assert (
        bench.main([f"--data_dir={data or helpers.challenge()}", *flags, "--only", *only]) == code
    )
    assert list((tmp_path / "work").iterdir()) == []  # nothing is left behind
    return (tmp_path / "page.md").read_text()


def test_the_script_measures_the_sections_of_its_only_flag(tmp_path, capsys):
    page = run_bench(tmp_path, "throughput", "preparation", "validation")
    output = capsys.readouterr().out
    for what in (
        "share of that rate",
        "preparing 24 motions, compared with np.load",
        "local score of 40 motions x 120 captions",
    ):
        assert what in page and what in output
    assert "time_to_score" not in page and page.count("Tiny sizes") == 3
    assert page.count(f"python solution/bench.py --data_dir={helpers.challenge()} --out=") == 3
    assert page.count("--only throughput preparation validation\n") == 3


def test_a_section_that_cannot_be_measured_is_reported_and_the_others_are_written(
    tmp_path, capsys, monkeypatch
):
    no_truth = tmp_path / "data"
    shutil.copytree(helpers.challenge(), no_truth)
    (no_truth / "test" / "gt.csv").unlink()

    def killed(*_):
        raise SubprocessError("train.py", "killed", "run it alone to see more")

    monkeypatch.setattr(memory_module, "measure_memory", killed)
    page = run_bench(tmp_path, "preparation", "time_to_score", "memory", data=no_truth, code=1)
    assert "## preparation" in page and "time_to_score was" not in page and "## memory" not in page
    errors = capsys.readouterr().err.splitlines()
    assert [
        line.split(" was not measured: ")[0] for line in errors if "was not measured" in line
    ] == ["time_to_score", "memory"]
    assert any("gt.csv: no such file" in line for line in errors)


def test_earlier_sections_stay_when_a_later_one_breaks(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("the machine is gone")

    monkeypatch.setattr(memory_module, "measure_memory", broken)
    with pytest.raises(RuntimeError, match="gone"):
        run_bench(tmp_path, "preparation", "memory")
    assert "preparing 24 motions" in (tmp_path / "page.md").read_text()


@pytest.fixture
def in_this_process(monkeypatch):
    """Calls the scripts that would run as processes, which would take seconds each."""
    scripts, commands = {"train": train.main, "ensemble": ensemble.main}, []

    def timed(command):
        commands.append(command)
        if command[1] == "-c":
            return TimedProcess(1.0, ())
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert scripts[Path(command[1]).stem](command[2:]) == 0
        return TimedProcess(
            float(len(commands)), tuple((0.0, line) for line in output.getvalue().splitlines())
        )

    monkeypatch.setattr(subprocesses, "run_timed", timed)
    return commands


@pytest.mark.usefixtures("in_this_process")
def test_the_time_to_a_score_ends_with_the_first_epoch_that_reaches_it(tmp_path):
    page = run_bench(tmp_path, "time_to_score", target=0, **MODEL, **helpers.SCRATCH)
    row = next(
        line
        for line in page.splitlines()
        if "seconds from a cold start to a true score of 0 " in line
    )
    assert "epoch 1 of 2" in row and "<= 90 s | yes" in row
    assert page.count(" at ") == 2  # the score after each epoch


@pytest.mark.usefixtures("in_this_process")
def test_a_score_that_is_not_reached_misses_the_goal(tmp_path):
    page = run_bench(
        tmp_path, "time_to_score", target=1.1, **MODEL | {"epochs": 1}, **helpers.SCRATCH
    )
    assert "not reached in" in page and "<= 90 s | no" in page


def test_inference_ranks_three_numbers_of_queries(tmp_path, in_this_process):
    page = run_bench(tmp_path, "inference", **MODEL | {"epochs": 1}, **helpers.SCRATCH)
    assert "test folder of 2 x 32 to submission.csv" in page
    times = "1 queries 6.0 s, 2 queries 7.0 s, 3 queries 8.0 s"
    slopes = "1000 ms for each further query up to 2, 1000 ms beyond"
    copies = "there are 24 motions, so 48 candidates of the 3 are copies"
    assert f"{times}: {slopes}; {copies}" in page
    names = [Path(command[1]).stem for command in in_this_process if command[1] != "-c"]
    assert names == ["train", "ensemble", "ensemble", "ensemble"]


def test_the_script_shows_its_help_without_torch():
    code = (
        "import sys, bench\ntry:\n    bench.main(['--help'])\n"
        "except SystemExit:\n    print('torch' in sys.modules)"
    )
    assert [line for _, line in subprocesses.run_timed([sys.executable, "-c", code]).lines][
        -1
    ] == "False"
