"""The device that computes, and its precision: bfloat16 matrix products where the hardware has them."""

import contextlib
import time
from collections.abc import Callable, Sequence

import torch

from motret.errors import ConfigError


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16. On a CPU asked of torch, where it knows (torch >= 2.12)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def matmul_dtype(device: torch.device) -> torch.dtype:
    """The type in which the hardware multiplies matrices fastest: bfloat16 where it has it, else float32."""
    return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32


def autocast(device: torch.device, amp: bool) -> contextlib.AbstractContextManager:
    """Matrix products in bfloat16 where `amp`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if amp else contextlib.nullcontext()


def choose_device(wanted: str) -> torch.device:
    """The device to compute on. ConfigError where a GPU is asked for and none is there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device", "cuda: torch sees no GPU", "use --device auto or cpu, or repair the driver")
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def uses_bfloat16(amp: str, device: torch.device) -> bool:
    """Whether --amp (on, off, auto) asks for bfloat16 on this device."""
    return amp == "on" or (amp == "auto" and computes_in_bfloat16(device))


def synchronized_clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds that waits until the device has done all its work."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def matrix_rate(device: torch.device, dtype: torch.dtype, sizes: Sequence[int], clock: Callable[[], float] | None = None) -> float:
    """Most operations a second that a product of square matrices reaches, over the sizes and ten repeats of each.

    clock: tells seconds, by default when the device has done its work.
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
