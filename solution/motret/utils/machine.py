"""What this machine offers to training: speed, precision and free memory."""

import functools
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MATRIX_SIZE = 1024
"""Rows of the square matrices whose product is timed."""
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
"""Where Linux tells its free memory, and the memory limit of a container."""


@dataclass(frozen=True)
class Machine:
    """The device that trains.

    rate: operations per second of matrix products; product_bytes: of a number in them; available:
    free bytes of its memory, None where unknown; n_cards: GPUs that may be used.
    """

    name: str
    is_gpu: bool
    rate: float
    product_bytes: int
    available: float | None
    n_cards: int


@functools.cache
def measure_machine(device_name: str) -> Machine:
    """Measures the device that --device names. On a GPU this process then holds memory of it."""
    import torch

    from motret.utils.device import choose_device, matmul_dtype, matrix_rate

    device = choose_device(device_name)
    dtype, is_gpu = matmul_dtype(device), device.type == "cuda"
    return Machine(
        name=torch.cuda.get_device_name(device) if is_gpu else "CPU",
        is_gpu=is_gpu,
        rate=matrix_rate(device, dtype, sizes=(MATRIX_SIZE,)),
        product_bytes=dtype.itemsize,
        available=torch.cuda.mem_get_info(device)[0] if is_gpu else free_memory(),
        n_cards=torch.cuda.device_count() if is_gpu else 0,
    )


@functools.cache
def measure_machine_apart(device_name: str) -> Machine:
    """The same, measured in a process that ends: this one holds no memory of a GPU."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_machine, device_name).result()


def free_memory() -> float | None:
    """Bytes of main memory that may be used, in a container within its limit; None where the system
    does not tell."""
    limits = [_available_pages(), _container_memory()]
    return min((limit for limit in limits if limit is not None), default=None)


def _available_pages() -> float | None:
    try:
        lines = MEMINFO.read_text(encoding="utf-8").splitlines()
        kibibytes = {name: rest.split()[0] for name, _, rest in (x.partition(":") for x in lines)}
        return 1024.0 * int(kibibytes["MemAvailable"])
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # Windows
        return None


def _container_memory() -> float | None:
    """What a container may still take; None outside of one, or without a limit."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        return float(limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return None
