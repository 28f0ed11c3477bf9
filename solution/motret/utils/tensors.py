"""Files of tensors, as torch.save writes them: nothing in them is run."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from motret.errors import MotretError, WeightsError
from motret.utils import reading

MAX_UNPACKING = 20
"""Such a file is not compressed, so unpacked it is as large; many times more is no such file."""


def load_tensors(
    path: Path,
    fix: str,
    device: torch.device | str = "cpu",
    problem: str = "is no readable checkpoint",
    error: type[MotretError] = WeightsError,
) -> Any:
    """The tensors and plain values of a file; problem, fix, error: where it cannot be read."""
    with reading.open_file(path, reading.MAX_TENSOR_BYTES, error) as (_, size):
        pass
    with reading.boundary(path, problem, fix, error):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                reading.check_unpacked_size(path, archive, MAX_UNPACKING * size, error)
        return torch.load(path, map_location=device, weights_only=True)
