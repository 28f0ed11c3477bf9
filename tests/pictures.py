"""What a test can tell of a picture: its size, that something is on it, and that nothing is cut off at its edge."""

from pathlib import Path

import numpy as np
from matplotlib import image

DPI = 130


def pixels(path: Path) -> np.ndarray:
    """(height, width, 3) of a PNG, 0 to 1."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    return image.imread(path, format="png")[..., :3]


def check(path: Path, height: float | None = None) -> np.ndarray:
    """Asserts that a picture is ten inches wide, drawn on, and white all along its edge; returns its pixels."""
    found = pixels(path)
    assert found.shape[1] == 10 * DPI
    assert height is None or abs(found.shape[0] - height * DPI) <= 1
    drawn = (found < 0.98).any(axis=-1)
    assert 0.01 < drawn.mean() < 0.9, f"{path.name} is empty or full: {drawn.mean():.1%}"
    for edge in (drawn[:2], drawn[-2:], drawn[:, :2], drawn[:, -2:]):
        assert not edge.any(), f"something is cut off at an edge of {path.name}"
    return found


def has(found: np.ndarray, colour: str) -> bool:
    """Whether a colour ("#RRGGBB") is somewhere on a picture, unmixed."""
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return bool((np.abs(found - wanted).max(axis=-1) < 0.004).any())
