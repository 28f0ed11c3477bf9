"""Script calls as processes: one after the other, or chains of them side by side."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import joblib

from motret.config import base, cli
from motret.utils import files

INTERRUPTED = 130
"""Exit code of a script that was stopped with Ctrl-C."""


@dataclass(frozen=True)
class Step:
    """One script call.

    optional: its failure does not stop the others; chain: steps of another chain do not depend on it and may run beside it.
    """

    title: str
    script: str
    args: tuple[str, ...]
    optional: bool = False
    chain: str | None = None

    @property
    def file(self) -> Path:
        return base.ROOT / "solution" / f"{self.script}.py"

    def command(self) -> str:
        """The call as it can be pasted into a shell."""
        return shlex.join([_shown_python(), str(base.relative_path(self.file)), *self.args])


@dataclass(frozen=True)
class StepResult:
    """code: exit code of the first step that failed, else 0; failed: the optional steps that did."""

    code: int
    failed: tuple[Step, ...] = ()


def run_steps(steps: Sequence[Step], side_by_side: int = 1, after: Callable[[Step], None] | None = None) -> StepResult:
    """Runs steps, each as its own process, until one fails.

    side_by_side: so many chains of consecutive steps run at a time; after: is told of each step that ended well.
    """
    numbered = [(f"[{number}/{len(steps)}]", step) for number, step in enumerate(steps, start=1)]
    failed: list[Step] = []
    several = side_by_side > 1 and len({step.chain for step in steps if step.chain is not None}) > 1
    for parallel, group in groupby(numbered, key=lambda entry: several and entry[1].chain is not None):
        entries = list(group)
        code = _run_chains(entries, side_by_side) if parallel else _run_chain(entries, _run_call, _print_step, failed, after)
        if code:
            return StepResult(code, tuple(failed))
    return StepResult(0, tuple(failed))


def effective_processes() -> int:
    """Processes that compute side by side: one for each core that this process may use."""
    return max(1, joblib.cpu_count())


def _print_step(text: str) -> None:
    print(text, flush=True)


def _run_chain(
    entries: Sequence[tuple[str, Step]],
    call: Callable[[Step], int],
    say: Callable[[str], None],
    failed: list[Step],
    after: Callable[[Step], None] | None = None,
) -> int:
    """Runs steps one after the other; returns the exit code of the first that failed and is not optional, else 0."""
    for number, step in entries:
        say(f"\n{number} {step.title}: {step.command()}")
        start = time.perf_counter()
        code = call(step)
        if code == INTERRUPTED:
            return code  # the script has said so
        if code and not step.optional:
            say(f"{number} failed: {step.title}, exit code {code}; once it is fixed the same command goes on from here")
            return code
        if code:
            failed.append(step)
            say(f"warning: {step.title} failed (exit code {code}); everything before it is finished")
        say(f"{number} {'failed' if code else 'done'} in {files.format_duration(time.perf_counter() - start)}")
        if after and not code:
            after(step)
    return 0


def _run_chains(entries: Sequence[tuple[str, Step]], side_by_side: int) -> int:
    """Runs chains side by side, each line of their output with the chain's name before it. Returns the first exit code that is not 0.

    When a step fails, steps that run beside it end in their own way, and none begins after them.
    """
    chains: dict[str, list[tuple[str, Step]]] = {}
    for number, step in entries:
        chains.setdefault(step.chain, []).append((number, step))
    slots = min(side_by_side, len(chains))
    width, lock, stop = max(map(len, chains)), threading.Lock(), threading.Event()
    print(f"\n{slots} of {', '.join(chains)} at a time, {_threads(slots)} thread{'s' if _threads(slots) > 1 else ''} each", flush=True)

    def run_chain(name: str) -> int:
        def say(text: str) -> None:
            with lock:
                print("\n".join(f"{name.ljust(width)} | {line}" for line in text.strip("\n").splitlines()), flush=True)

        def call(step: Step) -> int:
            return INTERRUPTED if stop.is_set() else _run_call_printing(step, say, _threads(slots))

        code = _run_chain(chains[name], call, say, [])
        if code:
            stop.set()
        return code

    with ThreadPoolExecutor(slots) as pool:
        codes = list(pool.map(run_chain, chains))
    return next((code for code in codes if code and code != INTERRUPTED), max(codes))


def _run_call(step: Step) -> int:
    """Runs a step and returns its exit code; Ctrl-C, which reaches it too, lets it end in its own way."""
    process = subprocess.Popen([sys.executable, str(step.file), *step.args])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return INTERRUPTED


def _run_call_printing(step: Step, say: Callable[[str], None], threads: int) -> int:
    """The same with so many threads, each line of what it prints handed to `say`."""
    surroundings = {"OMP_NUM_THREADS": str(threads)} | os.environ | {"PYTHONUNBUFFERED": "1", cli.STOPS_QUIETLY: "1"}
    process = subprocess.Popen(
        [sys.executable, str(step.file), *step.args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=surroundings, errors="replace"
    )
    for line in process.stdout:
        say(line)
    return process.wait()


def _threads(slots: int) -> int:
    return max(1, effective_processes() // slots)


def _shown_python() -> str:
    """The interpreter as one would type it here."""
    if shutil.which("python") == sys.executable:
        return "python"
    return str(base.relative_path(Path(sys.executable)))
