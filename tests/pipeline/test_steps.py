"""Script calls as processes: in order, in parallel, and after a failure."""

import re
import sys
from pathlib import Path

import pytest
import torch

from motret.config import base
from motret.pipeline import steps
from motret.pipeline.steps import Step
from motret.utils import logs


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two scripts: one that adds its argument to a file, one that fails."""
    logs.show_logs()
    folder = tmp_path / "solution"
    folder.mkdir()
    (folder / "note.py").write_text(
        "import sys\nopen('notes', 'a').write(sys.argv[1])\nprint('noted', sys.argv[1])\n"
    )
    (folder / "fail.py").write_text("import sys\nsys.exit('error: no')\n")
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def note(word: str, chain: str | None = None) -> Step:
    return Step(f"note {word}", "note", (word,), chain=chain)


def fail(optional: bool = False, chain: str | None = None) -> Step:
    return Step("fail", "fail", (), optional=optional, chain=chain)


def notes(repository: Path) -> str:
    file = repository / "notes"
    return file.read_text() if file.exists() else ""


def test_steps_run_in_order_and_the_first_that_fails_ends_them(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finished = []
    assert steps.run_steps([note("a"), note("b")], on_done=finished.append) == steps.StepsResult(0)
    assert notes(repository) == "ab" and [step.args for step in finished] == [("a",), ("b",)]
    assert steps.run_steps([note("c"), fail(), note("d")]).code == 1
    assert notes(repository) == "abc"
    out, err = capfd.readouterr()
    assert "[2/3] failed: fail, exit code 1" in out and "error: no" in err


def test_the_failure_of_an_optional_step_ends_nothing(repository: Path) -> None:
    broken = fail(optional=True)
    assert (
        steps.run_steps([broken, note("a")]) == steps.StepsResult(0, (broken,))
        and notes(repository) == "a"
    )


def test_chains_run_in_parallel_each_line_with_its_name(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chained = [note("a", "one"), note("b", "one"), note("c", "other")]
    assert steps.run_steps([note("x"), *chained, note("y")], n_parallel=2).code == 0
    written = notes(repository)
    assert written[0] == "x" and written[-1] == "y" and sorted(written[1:-1]) == ["a", "b", "c"]
    assert written.index("a") < written.index("b")
    lines = capfd.readouterr().out.splitlines()
    for line in ("one   | noted a", "one   | noted b", "other | noted c"):
        assert line in lines
    assert any(line.startswith("2 of one, other at a time") for line in lines)


def test_no_step_starts_after_a_chain_has_failed(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chained = [fail(chain="one"), note("a", "one")]
    assert steps.run_steps([*chained, fail(chain="other"), note("y")], n_parallel=2).code == 1
    assert notes(repository) == "" and "one   | error: no" in capfd.readouterr().out


def test_one_chain_alone_runs_as_steps_do(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert steps.run_steps([note("a", "one"), note("b", "one")], n_parallel=2).code == 0
    assert notes(repository) == "ab" and " | " not in capfd.readouterr().out


def test_a_parallel_step_has_its_share_of_the_threads(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "solution" / "note.py").write_text(
        "import os\nopen('notes', 'a').write(os.environ['OMP_NUM_THREADS'])\n"
    )
    monkeypatch.setattr(steps, "available_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert steps.run_steps([note("a", "one"), note("b", "other")], n_parallel=6).code == 0
    assert notes(repository) == "33"


def test_a_command_names_the_interpreter_as_one_would_type_it(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.setattr(steps.shutil, "which", lambda _: sys.executable)
    assert note("a").command() == "python solution/note.py a"
    monkeypatch.setattr(steps.shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "executable", str(repository / ".venv" / "bin" / "python"))
    assert note("a b").command() == ".venv/bin/python solution/note.py 'a b'"


def test_chains_that_run_at_a_time_see_a_gpu_of_their_own(
    repository: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "solution" / "gpu.py").write_text(
        "import os\nprint('sees', os.environ.get('CUDA_VISIBLE_DEVICES'))\n"
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    chained = [Step("gpu", "gpu", (), chain=name) for name in ("one", "other")]
    for gpus, seen in ((["0", "1"], {"0", "1"}), (["4", "5", "6", "7"], {"4,5", "6,7"})):
        assert steps.run_steps(chained, n_parallel=2, gpus=gpus).code == 0
        out = capfd.readouterr().out
        assert set(re.findall(r"\| sees (.*)", out)) == seen and "each on its own GPU" in out
    assert steps.run_steps(chained, n_parallel=2, gpus=["0"]).code == 0
    assert capfd.readouterr().out.count("sees None") == 2


def test_gpus_are_shared_out_evenly_where_there_are_enough() -> None:
    assert steps.share_gpus(["0", "1", "2"], 3) == ["0", "1", "2"]
    assert steps.share_gpus(["0", "1", "2", "3", "4"], 2) == ["0,1", "2,3"]
    for gpus, n_workers in (([], 2), (["0"], 2), (["0", "1"], 3)):
        assert steps.share_gpus(gpus, n_workers) == [None] * n_workers


def test_the_gpus_are_those_that_the_environment_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert steps.visible_gpus() == []  # no driver
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert steps.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert steps.visible_gpus() == ["3", "5"]
