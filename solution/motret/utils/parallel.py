"""Worker processes and threads: how many, and how they share the cores."""

import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import joblib

from motret.utils import logs, stopping


def share_threads(folds: int, jobs: int, threads: int) -> list[int]:
    """Threads for each of `folds` trainings, `jobs` of which run at a time.

    The last ones, where fewer than `jobs` remain, get more threads each.
    """
    sizes = [min(jobs, folds - start) for start in range(0, folds, jobs)]
    return [max(1, threads // size) for size in sizes for _ in range(size)]


def worker_number() -> int | None:
    """The number of this process in its pool of workers, counted from 0; None where it is no
    worker."""
    name = multiprocessing.current_process().name  # LokyProcess-2, ForkPoolWorker-1, ...
    match = re.search(r"-(\d+)$", name)
    return int(match[1]) - 1 if match else None


def local_rank() -> int | None:
    """The number of this process among those that torchrun has started on this machine; None where
    it has not."""
    started = all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    return int(os.environ["LOCAL_RANK"]) if started else None


def context_backend() -> str | None:
    """The name of the backend that `joblib.parallel_config` sets around this call, such as dask;
    None where it sets none."""
    backend, _ = joblib.parallel.get_active_backend()
    names = [
        name
        for name, kind in joblib.parallel.BACKENDS.items()
        if isinstance(backend, kind) and name != joblib.parallel.DEFAULT_BACKEND
    ]
    return names[0] if names else None


def worker_pool(
    jobs: int, n_tasks: int, prefer: Literal["threads", "processes"] = "processes"
) -> joblib.Parallel:
    """A joblib pool that yields the results of its tasks in order, as they are done.

    Within `joblib.parallel_config` it is of the backend that is set there. jobs: number of workers,
    -1 for one per core; never more than tasks.
    """
    workers = min(joblib.cpu_count() if jobs < 0 else jobs, n_tasks)
    return joblib.Parallel(n_jobs=workers, prefer=prefer, return_as="generator")


def begin_worker(threads: int | None = None) -> None:
    """Begins a task that may run in a process of its own: the log is shown, and the process ends
    with the one that started it.

    threads: that torch takes here; None: as many as before.
    """
    logs.show_logs()
    if worker_number() is not None:
        stopping.end_with_parent()
    if threads:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def single_thread() -> Iterator[None]:
    """Limits torch to one thread within it, for work that starts a thread per core itself."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
