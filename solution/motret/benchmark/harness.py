"""Measurements of the benchmark with their goals, and the page that records them."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

from motret.runs import environment
from motret.utils import files
from motret.utils.device import computes_in_bfloat16

STEPS_HEADING = "\n## Steps taken\n"
"""The page from this heading on is written by hand and stays."""
INTRODUCTION = """# Benchmarks

`python solution/bench.py` writes this page. Each section names the command that measured it.
A value is a ratio, or the two quantities of one, measured in one run on one machine: times of
different machines do not compare.
"""
PACKAGES = ("torch", "numpy", "transformers", "open-clip-torch")


@dataclass(frozen=True)
class Measurement:
    """One measurement.

    what: the quantity, in words; value: with its unit; goal: in words, and met: whether the value
    reaches it (both None where there is no goal).
    """

    what: str
    value: str
    goal: str | None = None
    met: bool | None = None

    def table_row(self) -> str:
        """A row of the page's table."""
        met = {None: "", True: "yes", False: "no"}[self.met]
        return f"| {self.what} | {self.value} | {self.goal or ''} | {met} |"

    def summary(self) -> str:
        """The same as a line for a terminal."""
        if self.goal is None:
            return f"{self.what}: {self.value}"
        return f"{self.what}: {self.value} (goal: {self.goal}; {'met' if self.met else 'not met'})"


def describe_machine(device: torch.device) -> tuple[str, ...]:
    """The hardware and software of a measurement, a line each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    bfloat16 = "with" if computes_in_bfloat16(torch.device("cpu")) else "without"
    processor = (
        f"{_processor_name()}, {os.cpu_count()} cores, {bfloat16} bfloat16 products, "
        f"{torch.get_num_threads()} threads; {memory:.0f} GB"
    )
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none used"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    commit = environment.git_commit() or "unknown"
    return (
        f"processor: {processor}",
        f"GPU: {gpu}",
        f"software: Python {platform.python_version()}, {versions}; commit {commit}",
    )


def _processor_name() -> str:
    """The processor's name; the machine type where the system does not give one."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def write_section(
    path: Path,
    section: str,
    command: str,
    machine: Sequence[str],
    measurements: Sequence[Measurement],
    quick: bool,
) -> None:
    """Writes one section of the page, new or in place of the old one.

    The other sections stay, and so does the page from `STEPS_HEADING` on. command: the one that
    measured it; machine: as from `describe_machine`; quick: the sizes were tiny.
    """
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    generated, heading, by_hand = page.partition(STEPS_HEADING)
    split = re.split(r"^## (.+)\n", generated, flags=re.MULTILINE)
    bodies = {name: body.strip("\n") for name, body in zip(split[1::2], split[2::2], strict=True)}
    lines = [
        *(["**Tiny sizes (--quick): these numbers mean nothing.**", ""] if quick else []),
        "```bash",
        command,
        "```",
        "",
        f"- {datetime.now():%Y-%m-%d}",
        *(f"- {line}" for line in machine),
        "",
        "| measurement | value | goal | met |",
        "|---|---|---|---|",
        *(measurement.table_row() for measurement in measurements),
    ]
    bodies[section] = "\n".join(lines)
    sections = "".join(f"\n## {name}\n\n{body}\n" for name, body in bodies.items())
    files.write_text(path, INTRODUCTION + sections + heading + by_hand)
