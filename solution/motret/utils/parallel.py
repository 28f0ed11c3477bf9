"""utils.parallel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import joblib


def share_threads(folds: int, jobs: int, threads: int) -> list[int]:
    """Threads for each of some folds that are trained `jobs` at a time; the last ones share what there is among fewer."""
    beside = [min(jobs, folds - start) for start in range(0, folds, jobs) for _ in range(min(jobs, folds - start))]
    return [max(1, threads // others) for others in beside]


def worker_pool(jobs: int, pieces: int, prefer: Literal["threads", "processes"] = "processes") -> joblib.Parallel:
    """What takes pieces of work and gives results in order; -1 jobs: one per core; never more than there are pieces."""
    return joblib.Parallel(n_jobs=min(joblib.cpu_count() if jobs < 0 else jobs, pieces), prefer=prefer, return_as="generator")


@contextmanager
def single_thread() -> Iterator[None]:
    """Within it threads that are started have torch to themselves, instead of starting as many threads again each."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
