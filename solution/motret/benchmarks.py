"""Readings of the benchmark beside their goals, and the page that they are kept on."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

from motret import files, runs, workplace

STEPS = "\n## Steps taken\n"
"""What stands on the page from this heading on is written by hand and kept."""
INTRODUCTION = """# Benchmarks

Written by `python solution/bench.py`, each part when it was measured, by the command that stands with it. Each reading is a ratio, or
what it is a ratio of, taken in one run on one machine: times of different machines do not compare.
"""
PACKAGES = ("torch", "numpy", "transformers", "open-clip-torch")


@dataclass(frozen=True)
class Reading:
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


def machine(device: torch.device) -> tuple[str, ...]:
    """What was measured on, with what: a line each."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    able = "with" if workplace.computes_in_bfloat16(torch.device("cpu")) else "without"
    computed = torch.cuda.get_device_name(device) if device.type == "cuda" else "none used"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"processor: {_processor()}, {os.cpu_count()} cores, {able} bfloat16 products, {torch.get_num_threads()} threads; {total:.0f} GB",
        f"GPU: {computed}",
        f"software: Python {platform.python_version()}, {versions}; commit {runs.git_commit() or 'unknown'}",
    )


def _processor() -> str:
    """The processor's name; the kind of machine where the system does not tell."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(path: Path, part: str, command: str, surroundings: Sequence[str], readings: Sequence[Reading], quick: bool) -> None:
    """Writes a part's section of the page anew, or adds it; other parts' sections, and what stands from `STEPS` on, stay.

    command: that measured it; surroundings: as `machine` tells them.
    """
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    sections, by_hand, kept = before.partition(STEPS)
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
    files.write_whole(path, lambda beside: beside.write_text(page, encoding="utf-8"))
