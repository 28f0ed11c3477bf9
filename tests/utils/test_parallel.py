"""How worker processes and threads share the cores."""

import torch

from motret.utils import parallel


def test_trainings_side_by_side_share_the_threads_and_the_last_ones_get_more() -> None:
    assert parallel.share_threads(3, jobs=2, threads=2) == [1, 1, 2]
    assert parallel.share_threads(5, jobs=3, threads=8) == [2, 2, 2, 4, 4]
    assert parallel.share_threads(2, jobs=4, threads=1) == [1, 1]


def test_torch_has_one_thread_within_and_its_own_number_after() -> None:
    before = torch.get_num_threads()
    with parallel.single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
