"""Script calls as processes: one after the other, or chains of them in parallel."""

import logging
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import joblib

from motret.config import base, cli
from motret.utils import files, stopping
from motret.utils.on_error import OnError

logger = logging.getLogger(__name__)

STOPPED = frozenset(map(stopping.exit_code, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)))
"""Exit codes of a script that was stopped: by a closed terminal, Ctrl-C, or a request to end."""


@dataclass(frozen=True)
class Step:
    """One script call.

    optional: the other steps go on if it fails; chain: steps of different chains are independent,
    so they may run in parallel.
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
        return shlex.join([_typed_python(), str(base.relative_path(self.file)), *self.args])


@dataclass(frozen=True)
class StepsResult:
    """code: exit code of the first required step that failed, else 0; failed: optional ones."""

    code: int
    failed: tuple[Step, ...] = ()


NOT_STARTED = stopping.exit_code(signal.SIGINT)
"""Stands for the exit code of a step that was not begun, since another has failed."""
NumberedStep = tuple[str, Step]
"""A step with its number among all, as `[2/9]`."""


def run_steps(
    steps: Sequence[Step],
    n_parallel: int = 1,
    gpus: Sequence[str] = (),
    on_done: Callable[[Step], None] | None = None,
) -> StepsResult:
    """Runs steps, each in its own process, until a required one fails.

    n_parallel: chains of consecutive steps that run at a time; gpus: names of the GPUs that chains
    share, each with its own; on_done: called after each step that succeeds and is in no parallel
    chain.
    """
    numbered = [(f"[{number}/{len(steps)}]", step) for number, step in enumerate(steps, start=1)]
    failed: list[Step] = []
    chains = {step.chain for step in steps if step.chain is not None}
    may_fork = n_parallel > 1 and len(chains) > 1
    for parallel, group in groupby(numbered, lambda entry: may_fork and entry[1].chain is not None):
        if parallel:
            code = _run_chains(list(group), n_parallel, gpus)
        else:
            code = _run_chain(list(group), _run_call, logger.info, failed, on_done)
        if code:
            return StepsResult(code, tuple(failed))
    return StepsResult(0, tuple(failed))


def available_cores() -> int:
    """Cores that this process may use."""
    return max(1, int(joblib.cpu_count()))


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES lists them.

    torch, which counts them, imports slowly; it is asked only where there is a driver.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    from motret.utils.device import count_cards

    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    n_gpus = count_cards("auto")
    return names[:n_gpus] or [str(number) for number in range(n_gpus)]


def _run_chain(
    entries: Sequence[NumberedStep],
    call: Callable[[Step], int],
    log: Callable[[str], None],
    failed: list[Step],
    on_done: Callable[[Step], None] | None = None,
) -> int:
    """Runs steps in order; returns the exit code of the first required one that failed, else 0.

    failed: optional steps that fail are added to it.
    """
    for number, step in entries:
        log(f"\n{number} {step.title}: {step.command()}")
        start = time.perf_counter()
        code = call(step)
        if code in STOPPED:
            return code  # the script has reported it
        if code and not step.optional:
            log(
                f"{number} failed: {step.title}, exit code {code}; "
                "once the problem is fixed, the same command continues from here"
            )
            return code
        if code:
            failed.append(step)
            log(f"warning: {step.title} failed (exit code {code}); all steps before it are done")
        duration = files.format_duration(time.perf_counter() - start)
        log(f"{number} {'failed' if code else 'done'} in {duration}")
        if on_done and not code:
            on_done(step)
    return 0


def _run_chains(entries: Sequence[NumberedStep], n_parallel: int, gpus: Sequence[str]) -> int:
    """Runs chains in parallel; returns the first exit code that is not 0, else 0.

    Of several GPUs each chain that runs sees its own. Each line of output has the chain's name
    before it. After a failure running steps end on their own, and no other step starts.
    """
    chains: dict[str, list[NumberedStep]] = {}
    for number, step in entries:
        chains.setdefault(step.chain or "", []).append((number, step))
    n_workers = min(n_parallel, len(chains))
    threads = max(1, available_cores() // n_workers)
    width, stop = max(map(len, chains)), threading.Event()
    many = "s" if threads > 1 else ""
    gpu_groups = share_gpus(gpus, n_workers)
    free_gpus: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for gpu_group in gpu_groups:
        free_gpus.put(gpu_group)
    on_gpus = ", each on its own GPU" if gpu_groups[0] else ""
    logger.info(
        f"\n{n_workers} of {', '.join(chains)} at a time, {threads} thread{many} each{on_gpus}"
    )

    def run_chain(name: str) -> int:
        def log(text: str) -> None:
            lines = text.strip("\n").splitlines()
            logger.info("\n".join(f"{name.ljust(width)} | {line}" for line in lines))

        gpu_group = free_gpus.get()
        environment = {} if gpu_group is None else {"CUDA_VISIBLE_DEVICES": gpu_group}
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))

        def call(step: Step) -> int:
            return NOT_STARTED if stop.is_set() else _run_logged_call(step, log, environment)

        code = _run_chain(chains[name], call, log, [])
        free_gpus.put(gpu_group)
        if code:
            stop.set()
        return code

    def end_all(error: BaseException) -> None:
        stop.set()
        stopping.end_children(stopping.signal_of(error))

    with ThreadPoolExecutor(n_workers) as pool, OnError(end_all):
        codes = list(pool.map(run_chain, chains))
    return next((code for code in codes if code and code not in STOPPED), max(codes))


def share_gpus(gpus: Sequence[str], n_workers: int) -> list[str | None]:
    """What each of some workers sees as CUDA_VISIBLE_DEVICES; None: all, as they cannot be shared
    out."""
    size = len(gpus) // n_workers
    if len(gpus) < 2 or size == 0:
        return [None] * n_workers
    return [",".join(gpus[start * size : (start + 1) * size]) for start in range(n_workers)]


def _run_call(step: Step) -> int:
    """Runs a step and returns its exit code. Ctrl-C reaches the step too, which ends on its own;
    other signals are passed on to it."""
    try:
        with stopping.running_child([sys.executable, str(step.file), *step.args]) as process:
            return process.wait()
    except stopping.Stopped as stop:
        return stopping.exit_code(stop.number)  # the script has reported it


def _run_logged_call(step: Step, log: Callable[[str], None], environment: Mapping[str, str]) -> int:
    """Runs a step, logs each line it prints, and returns its exit code.

    environment: what differs from that of this process.
    """
    with stopping.running_child(
        [sys.executable, str(step.file), *step.args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", cli.STOPS_QUIETLY: "1", **environment},
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            log(line)
        return process.wait()


def _typed_python() -> str:
    """The interpreter as one would type it here."""
    if shutil.which("python") == sys.executable:
        return "python"
    return str(base.relative_path(Path(sys.executable)))
