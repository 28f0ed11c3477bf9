"""How worker processes and threads share the cores."""

import joblib
import pytest
import torch

from motret.utils import parallel


def test_trainings_side_by_side_share_the_threads_and_the_last_ones_get_more() -> None:
    assert parallel.share_threads(3, jobs=2, threads=2) == [1, 1, 2]
    assert parallel.share_threads(5, jobs=3, threads=8) == [2, 2, 2, 4, 4]
    assert parallel.share_threads(2, jobs=4, threads=1) == [1, 1]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_workers_of_a_pool_are_numbered_and_their_parent_is_none(backend: str) -> None:
    assert parallel.worker_number() is None
    workers = joblib.Parallel(n_jobs=2, backend=backend)
    numbers = workers(joblib.delayed(parallel.worker_number)() for _ in range(4))
    assert all(number >= 0 for number in numbers) and len(set(numbers)) <= 2


def test_torch_has_one_thread_within_and_its_own_number_after() -> None:
    before = torch.get_num_threads()
    with parallel.single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
