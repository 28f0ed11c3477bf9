"""Scripts that a signal, a dead parent or a closed pipe ends: exit code, last words, no orphans."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from motret.utils import stopping

SOLUTION = Path(__file__).parents[2] / "solution"
SCRIPT = """
import os, sys, signal, time
from motret.config import cli
from motret.utils import stopping

@cli.command
def main(argv):
    {body}
    return 0

sys.exit(main([]))
"""
WAITS = "print('ready', flush=True); time.sleep(600)"
"""Until it is stopped, long before the time is over."""


def heed_signals() -> None:
    """A shell's background jobs, and so the tests that run in one, ignore Ctrl-C; under nohup they
    ignore SIGHUP too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(code: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(SOLUTION)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | options.pop("env", {}),
        preexec_fn=heed_signals,
        **options,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGINT, "stopped; finished work is kept"),
        (signal.SIGTERM, "stopped by SIGTERM; finished work is kept"),
        (signal.SIGHUP, "stopped by SIGHUP; finished work is kept"),
    ],
)
def test_a_signal_is_one_line_and_its_exit_code(number: int, words: str) -> None:
    process = start(SCRIPT.format(body=WAITS))
    assert line_of(process) == "ready"
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 128 + number
    assert out == "" and err.startswith(words) and err.count("\n") == 1


def test_an_error_that_a_library_makes_of_a_signal_is_no_error() -> None:
    body = f"""
    try:
        {WAITS}
    except BaseException:
        raise ImportError('half a module')
    """
    process = start(SCRIPT.format(body=body))
    assert line_of(process) == "ready"
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143 and "Traceback" not in err and "ImportError" not in err


def test_a_second_signal_ends_at_once_what_does_not_end() -> None:
    body = f"""
    try:
        {WAITS}
    finally:
        {WAITS}
    """
    process = start(SCRIPT.format(body=body))
    for _ in range(2):
        assert line_of(process) == "ready"
        process.terminate()
    assert process.wait() == 143


def test_a_signal_that_is_ignored_stays_so() -> None:
    body = "os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    out, err = (process := start(ignore + SCRIPT.format(body=body))).communicate()
    assert process.returncode == 0 and out == "alive\n" and err == ""


def test_handlers_are_those_of_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping.raise_on_signals() as request:
        assert signal.getsignal(signal.SIGTERM) is not before and request.number is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_output_into_a_closed_pipe_is_a_silent_end() -> None:
    body = "print('ready', flush=True)\n    for number in range(10**6): print(number)"
    process = start(SCRIPT.format(body=body))
    assert line_of(process) == "ready"
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == stopping.BROKEN_PIPE


def test_a_pipe_that_is_closed_at_the_end_is_silent_too() -> None:
    body = "print('ready', flush=True); sys.stdin.read(); print('last words')"
    process = start(SCRIPT.format(body=body), stdin=subprocess.PIPE)
    assert line_of(process) == "ready"
    assert process.stdout and process.stderr and process.stdin
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == "" and process.wait() == stopping.BROKEN_PIPE


# ---- parents and children


def ends(process: subprocess.Popen[str]) -> None:
    """Waits until every process that holds the output of this one has ended."""
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read()
    process.stderr.read()
    process.wait()


def parent_of(child: str) -> str:
    """A script that runs another as its step."""
    call = f"stopping.running_child([sys.executable, '-c', {child!r}])"
    return SCRIPT.format(body=f"\n    with {call} as process:\n        process.wait()")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_step_ends_with_the_script_that_runs_it(number: int) -> None:
    process = start(parent_of(SCRIPT.format(body=WAITS)))
    assert line_of(process) == "ready"
    process.send_signal(number)
    ends(process)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)


def test_a_step_of_a_step_ends_too() -> None:
    process = start(parent_of(parent_of(SCRIPT.format(body=WAITS))))
    assert line_of(process) == "ready"
    process.kill()
    ends(process)


def test_a_step_that_fails_to_end_is_killed_in_the_end() -> None:
    stubborn = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"
    code = parent_of(stubborn).replace("@cli", "stopping.GRACE_SECONDS = 0.01\n@cli")
    process = start(code)
    assert line_of(process) == "ready"
    process.terminate()
    ends(process)
    assert process.returncode == 143


def test_a_script_that_a_person_started_outlives_the_shell() -> None:
    """It has no parent to watch: only the script that starts another names itself."""
    body = "import threading; print(threading.active_count())"
    assert start(SCRIPT.format(body=body)).communicate()[0] == "1\n"
    watched = start(parent_of(SCRIPT.format(body=body)))
    assert watched.communicate()[0] == "2\n"


WORKERS = """
import sys, time
import joblib
from motret.utils import parallel

def work(number):
    parallel.begin_worker()
    print('ready', flush=True)
    time.sleep(600)

joblib.Parallel(n_jobs=2, backend={backend!r})(joblib.delayed(work)(n) for n in range(2))
"""


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_workers_end_with_the_process_that_was_killed(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "workers.py"
    file.write_text(WORKERS.format(backend=backend))
    process = start(f"import runpy; runpy.run_path({str(file)!r}, run_name='__main__')")
    assert [line_of(process) for _ in range(2)] == ["ready"] * 2
    process.kill()
    ends(process)


# ---- before a script has begun


def started(tmp_path: Path, code: str, flags: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A script in a folder whose scripts are prepared as ours are."""
    file = tmp_path / "script.py"
    prepare = (
        "from pathlib import Path\n"
        "from motret.utils import script_start\n"
        "script_start.prepare_script(Path(__file__).parent)\n"
    )
    file.write_text(prepare + code)
    return subprocess.Popen(
        [sys.executable, str(file), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOLUTION)},
        preexec_fn=heed_signals,
    )


def test_ctrl_c_during_the_imports_is_silent(tmp_path: Path) -> None:
    process = started(tmp_path, f"import time; {WAITS}")
    assert line_of(process) == "ready"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


REFUSED = "raise ImportError('libtorch_cpu.so: failed to map segment from shared object')"


def test_an_import_without_memory_is_one_line(tmp_path: Path) -> None:
    process = started(tmp_path, REFUSED)
    _, err = process.communicate()
    assert process.returncode == 1 and err.count("\n") == 1
    assert err.startswith("error: memory: there is not enough of it (libtorch_cpu.so: failed")
    _, err = (process := started(tmp_path, REFUSED, ["--debug"])).communicate()
    assert process.returncode == 1 and "Traceback" in err


@pytest.mark.parametrize("gigabytes", [0.6, 2.5])
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by address space")
def test_a_script_that_may_have_little_memory_is_one_line(gigabytes: float, tmp_path: Path) -> None:
    size = int(gigabytes * 1e9)
    done = subprocess.run(
        [sys.executable, str(SOLUTION / "train.py"), f"--data_dir={tmp_path}"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
        check=False,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: memory: there is not enough of it (")


def test_other_errors_of_an_import_are_shown_whole(tmp_path: Path) -> None:
    _, err = started(tmp_path, "raise ImportError('no such module')").communicate()
    assert "Traceback" in err


def test_nothing_is_changed_where_no_script_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM), sys.excepthook
    monkeypatch.delitem(sys.modules, "motret")
    import motret  # noqa: F401

    assert (signal.getsignal(signal.SIGTERM), sys.excepthook) == before
