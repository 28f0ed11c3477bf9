"""Commands run as processes of their own: their time, their output by time, their peak memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import IO

from motret.config import base
from motret.errors import ConfigError, MotretError
from motret.utils import stopping

SCRIPTS_DIR = base.ROOT / "solution"
POLL_SECONDS = 0.02


class SubprocessError(MotretError):
    """A command of the benchmark ended with an error."""


@dataclass(frozen=True)
class TimedProcess:
    """A command that has ended: its seconds, and the lines it printed with the second of each."""

    seconds: float
    lines: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class PeakMemory:
    """Peak resident bytes of a command and its workers: private memory, and mapped files."""

    private: int
    mapped: int


def script_command(name: str, *args: str) -> list[str]:
    """The command that runs one of the scripts in solution/."""
    return [sys.executable, str(SCRIPTS_DIR / f"{name}.py"), *args]


def code_command(code: str, *args: str) -> list[str]:
    """The command that runs a piece of Python; it can import the package."""
    return [sys.executable, "-c", code, *args]


def run_timed(command: Sequence[str]) -> TimedProcess:
    """Runs a command. SubprocessError with its last line where it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with _start_process(command, errors) as process:
            assert process.stdout is not None
            lines = tuple(
                (time.perf_counter() - start, line.rstrip("\n")) for line in process.stdout
            )
        _check_exit(process, command, errors)
        return TimedProcess(time.perf_counter() - start, lines)


def run_watched(command: Sequence[str]) -> tuple[PeakMemory, str]:
    """Runs a command and samples its memory; returns the peaks and its standard output.

    Errors as in `run_timed`; ConfigError on a system without /proc.
    """
    if not Path("/proc/self/status").is_file():
        problem = "memory is read from /proc, which this system does not have"
        raise ConfigError("--only", problem, "leave out memory and validation")
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as output:
        private = mapped = 0
        with _start_process(command, errors, output) as process:
            while process.poll() is None:
                resident = [_resident_bytes(pid) for pid in _process_tree(process.pid)]
                private = max(private, sum(sizes[0] for sizes in resident))
                mapped = max(mapped, sum(sizes[1] for sizes in resident))
                time.sleep(POLL_SECONDS)
        _check_exit(process, command, errors)
        output.seek(0)
        return PeakMemory(private, mapped), output.read()


@contextmanager
def _start_process(
    command: Sequence[str], errors: IO[str], output: IO[str] | int = subprocess.PIPE
) -> Iterator[Popen[str]]:
    """The running process of a command; it has ended when the block has."""
    env = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SCRIPTS_DIR)}
    with stopping.running_child(
        command, stdout=output, stderr=errors, text=True, env=env
    ) as process:
        yield process


def _check_exit(process: Popen[str], command: Sequence[str], errors: IO[str]) -> None:
    if process.returncode:
        errors.seek(0)
        lines = [line for line in errors.read().splitlines() if line.strip()]
        problem = lines[-1] if lines else f"exit code {process.returncode}"
        raise SubprocessError(Path(command[1]).name, problem, "run it alone to see more")


def _process_tree(pid: int) -> list[int]:
    """A process and its descendants, as far as they still run."""
    try:
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(descendant for child in children for descendant in _process_tree(child))]


def _resident_bytes(pid: int) -> tuple[int, int]:
    """Resident bytes of a process: private, and of mapped files; zero where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    status = dict(line.partition(":")[::2] for line in lines if line.startswith("Rss"))
    kilobytes = {name: int(value.split()[0]) for name, value in status.items()}
    mapped = kilobytes.get("RssFile", 0) + kilobytes.get("RssShmem", 0)
    return kilobytes.get("RssAnon", 0) * 1024, mapped * 1024
