"""The device that computes, the precision it computes in, and its speed."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from motret.errors import ConfigError
from motret.utils.parallel import local_rank, worker_number

logger = logging.getLogger(__name__)

TENSOR_CORES = (7, 0)
"""Compute capability from which cards multiply float16 matrices several times as fast as float32.

Source: CUDA C++ Programming Guide, table of features by compute capability."""

# ---- device


def choose_device(name: str) -> torch.device:
    """The device that --device names: cpu, cuda, cuda:<k>, or auto for a card that works, if any.

    A card is tried with one small operation before it is believed. With auto a card that fails is
    passed over with a warning. Of several cards the worker processes of a pool, or those that
    torchrun starts, take one each, in turn. ConfigError where a card is required and cannot be
    used.
    """
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if name == "auto":
            return torch.device("cpu")
        fix = "use --device auto or cpu, or repair the driver"
        raise ConfigError("--device", f"{name}: torch sees no GPU", fix)
    device = torch.device(_card_of_worker() if name in ("auto", "cuda") else name)
    problem = _try_card(device)
    if problem is None:
        return device
    if name != "auto":
        fix = "use --device cpu, another card, or a torch that supports this one"
        raise ConfigError("--device", f"{name} cannot be used: {problem}", fix)
    _warn_once(f"the GPU cannot be used, so the CPU computes: {problem}")
    return torch.device("cpu")


def _card_of_worker() -> str:
    """The card of this process: that of its number in the pool or under torchrun, or the first
    where it is in neither."""
    number, n_cards = worker_number(), torch.cuda.device_count()
    number = local_rank() if number is None else number
    return "cuda" if number is None or n_cards < 2 else f"cuda:{number % n_cards}"


@cache
def _try_card(device: torch.device) -> str | None:
    """What is wrong with a card, in one line; None where a small operation on it succeeds.

    A wheel of torch has kernels for some cards only: on a P100 (sm_60) recent ones fail at the
    first operation, not before.
    """
    try:
        matrix = torch.ones(8, 8, device=device)
        if float((matrix @ matrix).sum()) == 512:
            return None
        return f"{_card_name(device)} computes a wrong product"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"{_card_name(device)}: {reason}"


def _card_name(device: torch.device) -> str:
    try:
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})"
    except (RuntimeError, AssertionError):
        return str(device)


@cache
def _warn_once(message: str) -> None:
    logger.warning(f"warning: {message}")


def count_cards(name: str) -> int:
    """Number of cards that the processes of a pool use under --device `name`: 0 on a CPU, 1 where a
    card is named by its number.

    The driver is asked; nothing is computed, and this process takes no memory of a card.
    """
    if name == "cpu":
        return 0
    n_cards = torch.cuda.device_count()
    return min(n_cards, 1) if ":" in name else n_cards


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. A copy from the CPU to a card waits for nothing.

    So a step is prepared while the card still computes the one before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


# ---- precision


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16; of a CPU known from torch 2.12 on."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def training_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """What training computes matrix products in by --amp; None: in float32.

    auto: bfloat16 where the hardware has it, else float16 where a card has tensor cores.
    """
    if amp in ("off", "bf16", "fp16"):
        return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    if computes_in_bfloat16(device):
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES:
        return torch.float16
    return None


def inference_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """What a finished model computes in: as in training, but float32 in place of float16.

    Training finds out where float16 overflows; a model trained in another precision was never
    tried.
    """
    dtype = training_dtype(amp, device)
    return None if dtype is torch.float16 else dtype


def matmul_dtype(device: torch.device) -> torch.dtype:
    """The type for fast matrix products: that of training with --amp auto."""
    return training_dtype("auto", device) or torch.float32


def autocast(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager[None]:
    """A context in which matrix products are computed in `dtype`; None: as they are."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def describe_precision(device: torch.device, dtype: torch.dtype | None) -> str:
    """The device and the precision of training, for the log."""
    name = "CPU" if device.type == "cpu" else f"{device} {_card_name(device)}"
    scaled = " with loss scaling" if dtype is torch.float16 else ""
    return f"{name}, {str(dtype or torch.float32).removeprefix('torch.')}{scaled}"


# ---- speed


def synchronized_clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds that waits until the device has done all its work."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype,
    sizes: Sequence[int],
    clock: Callable[[], float] | None = None,
) -> float:
    """Operations per second of the fastest square matrix product, among the sizes and ten repeats.

    A multiplication and an addition count as two operations. clock: by default that of the device.
    """
    clock, best = clock or synchronized_clock(device), 0.0
    for size in sizes:
        matrix = torch.randn(size, size, device=device).to(dtype)
        matrix @ matrix  # the first product chooses its kernel
        for _ in range(10):
            start = clock()
            matrix @ matrix
            best = max(best, 2 * size**3 / (clock() - start))
    return best
