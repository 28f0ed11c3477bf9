"""Other processes, timed and watched: how long a command takes, when it says what, how much memory it holds."""
# MERGED: """Readings of the benchmark beside their goals, and the page that they are kept on."""
#

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from subprocess import Popen
from typing import IO

import torch

from motret.config import base
from motret.errors import ConfigError, MotretError
from motret.runs import run
from motret.utils import files
from motret.utils.device import computes_in_bfloat16

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
    """Most bytes that a command and its workers held: of their own, and pages of files mapped into memory."""

    own: int
    mapped: int


def script_command(name: str, *args: str) -> list[str]:
    """The command that runs a script of ours."""
    return [sys.executable, str(SCRIPTS_DIR / f"{name}.py"), *args]


def code_command(text: str, *args: str) -> list[str]:
    """The command that runs some Python, with our modules at hand."""
    return [sys.executable, "-c", text, *args]


def run_timed(command: Sequence[str]) -> TimedProcess:
    """Runs a command. SubprocessError with its last line where it fails."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with _started_process(command, errors) as child:
            lines = tuple((time.perf_counter() - start, line.rstrip("\n")) for line in child.stdout)
        _check_exit(child, command, errors)
        return TimedProcess(time.perf_counter() - start, lines)


def run_watched(command: Sequence[str]) -> tuple[PeakMemory, str]:
    """Runs a command and looks at its memory all the while; also gives what it printed."""
    if not Path("/proc/self/status").is_file():
        raise ConfigError("--only", "memory is read from /proc, which this system does not have", "leave out memory and validation")
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as told:
        own = mapped = 0
        with _started_process(command, errors, told) as child:
            while child.poll() is None:
                held = [_memory_of(pid) for pid in _descendants(child.pid)]
                own, mapped = max(own, sum(one for one, _ in held)), max(mapped, sum(other for _, other in held))
                time.sleep(POLL_SECONDS)
        _check_exit(child, command, errors)
        told.seek(0)
        return PeakMemory(own, mapped), told.read()


@contextmanager
def _started_process(command: Sequence[str], errors: IO[str], told: IO[str] | int = subprocess.PIPE):
    """The process of a command, ended with the block."""
    surroundings = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SCRIPTS_DIR)}
    with Popen(command, stdout=told, stderr=errors, text=True, env=surroundings) as child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise


def _check_exit(child: Popen, command: Sequence[str], errors: IO[str]) -> None:
    if child.returncode:
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line.strip()]
        raise SubprocessError(Path(command[1]).name, said[-1] if said else f"exit code {child.returncode}", "run it alone to see more")


def _descendants(pid: int) -> list[int]:
    """A process and all that come from it, as far as they are still there."""
    try:
        born = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(one for child in born for one in _descendants(child))]


def _memory_of(pid: int) -> tuple[int, int]:
    """Bytes in memory of a process: its own, and of mapped files; nothing where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines) if name.startswith("Rss")}
    return found.get("RssAnon", 0), found.get("RssFile", 0) + found.get("RssShmem", 0)


STEPS_HEADING = "\n## Steps taken\n"
"""What stands on the page from this heading on is written by hand and kept."""
INTRODUCTION = """# Benchmarks

Written by `python solution/bench.py`, each part when it was measured, by the command that stands with it. Each reading is a ratio, or
what it is a ratio of, taken in one run on one machine: times of different machines do not compare.
"""
PACKAGES = ("torch", "numpy", "transformers", "open-clip-torch")


@dataclass(frozen=True)
class Measurement:
    """One thing measured: what, in words, its value, and the goal with whether it is met (both None where there is none)."""

    what: str
    value: str
    goal: str | None = None
    met: bool | None = None

    def row(self) -> str:
        """A row of the table."""
        return f"| {self.what} | {self.value} | {self.goal or ''} | {'' if self.met is None else 'yes' if self.met else 'no'} |"

    def line(self) -> str:
        """The same for a terminal."""
        told = "" if self.goal is None else f" (goal: {self.goal}; {'met' if self.met else 'not met'})"
        return f"{self.what}: {self.value}{told}"


def describe_machine(device: torch.device) -> tuple[str, ...]:
    """What was measured on, with what: a line each."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    able = "with" if computes_in_bfloat16(torch.device("cpu")) else "without"
    computed = torch.cuda.get_device_name(device) if device.type == "cuda" else "none used"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"processor: {_processor_name()}, {os.cpu_count()} cores, {able} bfloat16 products, {torch.get_num_threads()} threads; {total:.0f} GB",
        f"GPU: {computed}",
        f"software: Python {platform.python_version()}, {versions}; commit {run.git_commit() or 'unknown'}",
    )


def _processor_name() -> str:
    """The processor's name; the kind of machine where the system does not tell."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_section(path: Path, part: str, command: str, surroundings: Sequence[str], readings: Sequence[Measurement], quick: bool) -> None:
    """Writes a part's section of the page anew, or adds it; other parts' sections, and what stands from `STEPS` on, stay.

    command: that measured it; surroundings: as `describe_machine` tells them.
    """
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    sections, by_hand, kept = before.partition(STEPS_HEADING)
    parts = re.split(r"^## (.+)\n", sections, flags=re.MULTILINE)
    bodies = {name: body.strip("\n") for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    lines = [
        *(["**Tiny sizes (--quick): these numbers mean nothing.**", ""] if quick else []),
        "```bash",
        command,
        "```",
        "",
        f"- {datetime.now():%Y-%m-%d}",
        *(f"- {line}" for line in surroundings),
        "",
        "| what | reading | goal | met |",
        "|---|---|---|---|",
        *(reading.row() for reading in readings),
    ]
    bodies[part] = "\n".join(lines)
    page = INTRODUCTION + "".join(f"\n## {name}\n\n{body}\n" for name, body in bodies.items()) + by_hand + kept
    files.write_text(path, page)
