"""A run that was damaged says what to do, and what it says to do works."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import helpers
import train
from motret.errors import MotretError
from motret.runs import checkpoints, history, oof
from motret.runs.run import open_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds and two epochs, which no test may change."""
    folder = tmp_path_factory.mktemp("finished")
    assert helpers.run_training(folder, "run", epochs=2, ema=0.9) == 0
    return folder / "run"


@pytest.fixture
def fold_dir(finished: Path, tmp_path: Path) -> Path:
    """The first fold of a copy of the run."""
    return Path(shutil.copytree(finished, tmp_path / "my run")) / "fold0"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def read_all(fold_dir: Path) -> None:
    """Reads everything of a fold that other scripts read."""
    run = open_run(fold_dir.parent)
    checkpoint = checkpoints.load_checkpoint(checkpoints.best_checkpoint(fold_dir), helpers.CPU)
    assert checkpoint["epoch"] == 2
    assert len(history.read_metrics(fold_dir / "metrics.csv")) == 2
    oof.load_out_of_fold(run, 0)


def do_what_it_says(error: MotretError) -> None:
    """Follows the fix of an error."""
    if "put a copy back, or move" in error.fix:
        folder = Path(re.search(r"move (.+) away", error.fix)[1])
        folder.rename(folder.with_name(f"former_{folder.name}"))
    if error.fix.startswith("remove it"):
        Path(error.path).unlink()
    command = shlex.split(re.search(r"`(.+)`", error.fix)[1])
    assert command[:2] == ["python", "solution/train.py"]
    assert train.main(command[2:]) == 0


DAMAGE: dict[str, Callable[[Path], None]] = {
    "best checkpoint gone": lambda fold: (fold / "best_epoch2.pt").unlink(),
    "best checkpoint cut short": lambda fold: cut_short(fold / "best_epoch2.pt"),
    "best checkpoint of text": lambda fold: torch.save(["x"], fold / "best_epoch2.pt"),
    "metrics.csv cut short": lambda fold: cut_short(fold / "metrics.csv"),
    "metrics.csv empty": lambda fold: (fold / "metrics.csv").write_text(""),
    "embeddings cut short": lambda fold: cut_short(fold / "oof.npz"),
    "both checkpoints gone": lambda fold: [file.unlink() for file in fold.glob("*.pt")],
    "both checkpoints cut short": lambda fold: [cut_short(file) for file in fold.glob("*.pt")],
    "metrics.csv cut short and no last.pt": lambda fold: (
        cut_short(fold / "metrics.csv"),
        (fold / "last.pt").unlink(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_the_error_of_a_damaged_fold_says_to_do_works(
    finished: Path, fold_dir: Path, damage: str
) -> None:
    DAMAGE[damage](fold_dir)
    with pytest.raises(MotretError) as caught:
        read_all(fold_dir)
    do_what_it_says(caught.value)
    read_all(fold_dir)
    before, after = (
        torch.load(folder / "best_epoch2.pt", weights_only=True)["model"]
        for folder in (finished / "fold0", fold_dir)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    vectors = [np.load(folder / "oof.npz")["text"] for folder in (finished / "fold0", fold_dir)]
    np.testing.assert_array_equal(*vectors)


# a copy of a run for ranking has no last.pt: without metrics.csv it is not trained again unasked
MENDED = [damage for damage in DAMAGE if not damage.endswith("no last.pt")]


@pytest.mark.parametrize("damage", [*MENDED, "last.pt cut short"])
def test_resuming_mends_a_fold_without_a_hand(
    fold_dir: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    if damage == "last.pt cut short":
        cut_short(fold_dir / "last.pt")
        (fold_dir / "oof.npz").unlink()
    else:
        DAMAGE[damage](fold_dir)
    assert train.main(["--resume", str(fold_dir.parent), "--fold", "0"]) == 0
    read_all(fold_dir)
    assert "fold0" in capsys.readouterr().out


def test_a_whole_run_is_left_as_it_is(fold_dir: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in fold_dir.parent.rglob("*") if path.is_file()}
    assert train.main(["--resume", str(fold_dir.parent)]) == 0
    assert files == {path: path.stat().st_mtime_ns for path in files}
