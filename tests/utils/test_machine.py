"""What the machine offers: measured, here and in a process of its own."""

import os
from pathlib import Path

import pytest

from motret.utils import machine


def test_a_cpu_has_a_rate_a_precision_and_memory() -> None:
    found = machine.measure_machine("cpu")
    assert (found.name, found.is_gpu, found.n_cards) == ("CPU", False, 0)
    assert found.rate > 1e6 and found.product_bytes in (2, 4)
    assert found.available is not None and found.available > 1e6


def test_a_process_of_its_own_measures_the_same_machine() -> None:
    apart = machine.measure_machine_apart("cpu")
    here = machine.measure_machine("cpu")
    assert (apart.name, apart.product_bytes) == (here.name, here.product_bytes)


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    whole = machine.free_memory()
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert whole is not None and machine.free_memory() == pytest.approx(whole, rel=0.5)
    (tmp_path / "memory.max").write_text("3000000\n")
    assert machine.free_memory() == 2_000_000


def test_a_system_that_tells_nothing_has_no_known_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_: str) -> int:
        raise ValueError

    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(os, "sysconf", unknown)
    assert machine.free_memory() is None
