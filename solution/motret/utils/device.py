"""The device that computes, its precision (bfloat16 where the hardware has it) and its speed."""

import contextlib
import time
from collections.abc import Callable, Sequence

import torch

from motret.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device that --device names: cpu, cuda, or auto for a GPU where there is one.

    ConfigError where a GPU is required and torch sees none.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError(
            "--device", "cuda: torch sees no GPU", "use --device auto or cpu, or repair the driver"
        )
    return torch.device("cuda" if has_gpu and name in ("cuda", "auto") else "cpu")


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies matrices in bfloat16; of a CPU known from torch 2.12 on."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def uses_bfloat16(amp: str, device: torch.device) -> bool:
    """Whether --amp (on, off, auto) means bfloat16 on this device."""
    return amp == "on" or (amp == "auto" and computes_in_bfloat16(device))


def matmul_dtype(device: torch.device) -> torch.dtype:
    """The type for fast matrix products: bfloat16 where the hardware has it, else float32."""
    return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32


def autocast(device: torch.device, amp: bool) -> contextlib.AbstractContextManager[None]:
    """A context in which matrix products are computed in bfloat16, if `amp`."""
    if amp:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


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
