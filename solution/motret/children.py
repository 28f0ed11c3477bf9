"""Other processes, timed and watched: how long a command takes, when it says what, how much memory it holds."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import IO

from motret import config
from motret.faults import Fault, SettingFault

SOLUTION = config.ROOT / "solution"
WATCH_SECONDS = 0.02


class ChildFault(Fault):
    """A command of the benchmark ended with an error."""


@dataclass(frozen=True)
class Timed:
    """A command that has ended: its seconds, and the lines it printed with the second of each."""

    seconds: float
    lines: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Memory:
    """Most bytes that a command and its workers held: of their own, and pages of files mapped into memory."""

    own: int
    mapped: int


def script(name: str, *args: str) -> list[str]:
    """The command that runs a script of ours."""
    return [sys.executable, str(SOLUTION / f"{name}.py"), *args]


def code(text: str, *args: str) -> list[str]:
    """The command that runs some Python, with our modules at hand."""
    return [sys.executable, "-c", text, *args]


def timed(command: Sequence[str]) -> Timed:
    """Runs a command. ChildFault with its last line where it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with _started(command, errors) as child:
            lines = tuple((time.perf_counter() - start, line.rstrip("\n")) for line in child.stdout)
        _must_end_well(child, command, errors)
        return Timed(time.perf_counter() - start, lines)


def watched(command: Sequence[str]) -> tuple[Memory, str]:
    """Runs a command and looks at its memory all the while; also gives what it printed."""
    if not Path("/proc/self/status").is_file():
        raise SettingFault("--only", "memory is read from /proc, which this system does not have", "leave out memory and validation")
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as told:
        own = mapped = 0
        with _started(command, errors, told) as child:
            while child.poll() is None:
                held = [_held(pid) for pid in _family(child.pid)]
                own, mapped = max(own, sum(one for one, _ in held)), max(mapped, sum(other for _, other in held))
                time.sleep(WATCH_SECONDS)
        _must_end_well(child, command, errors)
        told.seek(0)
        return Memory(own, mapped), told.read()


@contextmanager
def _started(command: Sequence[str], errors: IO[str], told: IO[str] | int = subprocess.PIPE):
    """The process of a command, ended with the block."""
    surroundings = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SOLUTION)}
    with Popen(command, stdout=told, stderr=errors, text=True, env=surroundings) as child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise


def _must_end_well(child: Popen, command: Sequence[str], errors: IO[str]) -> None:
    if child.returncode:
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line.strip()]
        raise ChildFault(Path(command[1]).name, said[-1] if said else f"exit code {child.returncode}", "run it alone to see more")


def _family(pid: int) -> list[int]:
    """A process and all that come from it, as far as they are still there."""
    try:
        born = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(one for child in born for one in _family(child))]


def _held(pid: int) -> tuple[int, int]:
    """Bytes in memory of a process: its own, and of mapped files; nothing where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines) if name.startswith("Rss")}
    return found.get("RssAnon", 0), found.get("RssFile", 0) + found.get("RssShmem", 0)
