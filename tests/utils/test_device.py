"""The device that computes, and its precision."""

import itertools

import pytest
import torch

from motret.errors import ConfigError
from motret.utils import device

CPU = torch.device("cpu")


def test_the_matrix_rate_is_that_of_the_best_product() -> None:
    ticks = itertools.count(0, 0.5)
    assert device.matrix_rate(CPU, torch.float32, (8, 16), lambda: next(ticks)) == 2 * 16**3 / 0.5


def test_matrices_are_multiplied_in_bfloat16_only_where_the_hardware_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "computes_in_bfloat16", lambda _, able=able: able)
        assert device.matmul_dtype(CPU) == dtype
        assert device.uses_bfloat16("auto", CPU) is able
        assert device.uses_bfloat16("on", CPU) and not device.uses_bfloat16("off", CPU)


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose_device("auto") == device.choose_device("cpu") == CPU
    with pytest.raises(ConfigError, match="--device: cuda: torch sees no GPU"):
        device.choose_device("cuda")
