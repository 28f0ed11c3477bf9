"""The device that computes, and its precision."""

import itertools
import re

import pytest
import torch

from motret.errors import ConfigError
from motret.utils import device

CPU, CARD = torch.device("cpu"), torch.device("cuda")
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nmore lines"


def card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], works: bool = True) -> None:
    """Stands in for a card of a compute capability, whose operations succeed or not."""

    def ones(*size: int, device: torch.device) -> torch.Tensor:
        if not works:
            raise RuntimeError(NO_KERNEL)
        return torch.full(size, 1.0)

    device._try_card.cache_clear()
    device._warn_once.cache_clear()
    monkeypatch.setattr(torch, "ones", ones)
    for name, value in {
        "is_available": True,
        "device_count": 2,
        "get_device_capability": capability,
        "get_device_name": "Tesla",
        "is_bf16_supported": capability >= (8, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value, **__: value)


def test_the_matrix_rate_is_that_of_the_best_product() -> None:
    ticks = itertools.count(0, 0.5)
    assert device.matrix_rate(CPU, torch.float32, (8, 16), lambda: next(ticks)) == 2 * 16**3 / 0.5


@pytest.mark.parametrize(
    ("capability", "training", "inference"),
    [
        ((6, 0), None, None),  # P100
        ((7, 0), torch.float16, None),  # V100
        ((7, 5), torch.float16, None),  # T4
        ((8, 9), torch.bfloat16, torch.bfloat16),  # L4
        ((9, 0), torch.bfloat16, torch.bfloat16),  # H100
    ],
)
def test_a_card_trains_in_the_fastest_type_it_multiplies_and_is_asked_in_one_that_never_overflows(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    training: torch.dtype | None,
    inference: torch.dtype | None,
) -> None:
    card(monkeypatch, capability)
    for amp in ("auto", "on"):
        assert device.training_dtype(amp, CARD) is training
        assert device.inference_dtype(amp, CARD) is inference
    assert device.matmul_dtype(CARD) == (training or torch.float32)


def test_a_cpu_trains_in_bfloat16_only_where_the_hardware_multiplies_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for able, dtype in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(device, "computes_in_bfloat16", lambda _, able=able: able)
        assert device.training_dtype("auto", CPU) is dtype
        assert device.matmul_dtype(CPU) == (dtype or torch.float32)


def test_a_precision_that_is_named_is_obeyed() -> None:
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}
    for amp, dtype in named.items():
        assert device.training_dtype(amp, CPU) is dtype
    assert device.inference_dtype("bf16", CPU) is torch.bfloat16
    with device.autocast(CPU, torch.float16):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype is torch.float16
    with device.autocast(CPU, None):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype is torch.float32


def test_the_device_and_the_precision_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.describe_precision(CPU, None) == "CPU, float32"
    card(monkeypatch, (7, 5))
    described = device.describe_precision(torch.device("cuda:1"), torch.float16)
    assert described == "cuda:1 Tesla (sm_75), float16 with loss scaling"


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.choose_device("auto") == device.choose_device("cpu") == CPU
    with pytest.raises(ConfigError, match="--device: cuda: torch sees no GPU"):
        device.choose_device("cuda")


def test_a_card_that_works_is_used_under_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (7, 5))
    assert device.choose_device("auto") == device.choose_device("cuda") == CARD
    assert device.choose_device("cuda:1") == torch.device("cuda:1")
    assert device.choose_device("cpu") == CPU


def test_the_workers_of_a_pool_take_the_cards_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (7, 5))
    for number, name in ((0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0"), (None, "cuda")):
        monkeypatch.setattr(device, "worker_number", lambda number=number: number)
        assert device.choose_device("auto") == device.choose_device("cuda") == torch.device(name)
        assert device.choose_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device, "worker_number", lambda: 1)
    assert device.choose_device("auto") == CARD


def test_a_card_that_fails_at_its_first_operation_is_passed_over_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card(monkeypatch, (6, 0), works=False)
    warnings: list[str] = []
    monkeypatch.setattr(device.logger, "warning", warnings.append)
    assert device.choose_device("auto") == device.choose_device("auto") == CPU
    reason = "Tesla (sm_60): CUDA error: no kernel image is available for execution on the device"
    assert warnings == [f"warning: the GPU cannot be used, so the CPU computes: {reason}"]
    with pytest.raises(ConfigError, match=f"--device: cuda cannot be used: {re.escape(reason)}"):
        device.choose_device("cuda")


def test_cards_are_counted_for_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (7, 5))
    counts = {name: device.count_cards(name) for name in ("auto", "cuda", "cuda:1", "cpu")}
    assert counts == {"auto": 2, "cuda": 2, "cuda:1": 1, "cpu": 0}
