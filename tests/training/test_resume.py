"""Resuming a run: by its own settings, for more epochs, and from one of its checkpoint files."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import helpers
import train
from motret.runs import checkpoints
from motret.runs.run import open_run, settings_hash

LONG = {"epochs": 4, "lr": 1e-3, "save_every": 1, "ema": 0.9}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds and four epochs, a checkpoint kept of each."""
    folder = tmp_path_factory.mktemp("finished")
    assert helpers.run_training(folder, "run", **LONG) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may spoil."""
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def resumed(where: Path, *flags: str) -> int:
    """train.py --resume with nothing else but these flags."""
    return train.main(["--resume", str(where), *flags])


def epochs_of(run: Path, fold: int) -> list[str]:
    with (run / f"fold{fold}" / "metrics.csv").open(newline="") as stream:
        return [row["epoch"] for row in csv.DictReader(stream)]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load_checkpoint(file, helpers.CPU)["model"]


def embeddings(run: Path, fold: int) -> np.ndarray:
    with np.load(run / f"fold{fold}" / "oof.npz") as kept:
        return kept["motion"]


def break_off(run: Path, fold: int, epoch: int) -> None:
    """Leaves a fold as it is where a run was killed after an epoch."""
    part = run / f"fold{fold}"
    kept = checkpoints.load_checkpoint(part / f"ckpt_epoch{epoch}.pt", helpers.CPU)
    checkpoints.save_checkpoint(part / "last.pt", kept["state"])
    (part / "oof.npz").unlink()
    (part / "best_epoch4.pt").unlink()


def test_a_resumed_run_needs_no_flag_repeated(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_off(run, 1, 2)
    assert resumed(run) == 0
    message = capsys.readouterr().out
    assert f"settings of {run / 'args.json'}" in message and "finished before: fold0" in message
    np.testing.assert_array_equal(embeddings(run, 1), embeddings(finished / "run", 1))
    torch.testing.assert_close(
        weights(run / "fold1" / "best_epoch4.pt"),
        weights(finished / "run" / "fold1" / "best_epoch4.pt"),
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--lr=1e-2", "--width=8"],
            "has other settings: width 16 -> 8, lr 0.001 -> 0.01 (leave these flags out",
        ),
        (["sgar"], "has other settings: variant holistic -> sgar"),
        (["--preset=full"], "has other settings: preset None -> full"),
        (["--epochs=3"], "was trained for 4 epochs, more than --epochs 3 (give as many or more)"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert resumed(run, *flags) == 1
    assert f"error: {run}: {said}" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_flags_of_where_and_how_long_may_be_given(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resumed(run, "--jobs=2", "--device=cpu", "--fold=0", "--lr=1e-3", "holistic") == 0
    assert "but for device, fold, jobs" in capsys.readouterr().out


def test_more_epochs_on_a_finished_run_go_on_from_it(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        resumed(run, "--epochs=6", "--fold=0") == 0
    )  # every finished fold goes on, or they would be models of two kinds
    message = capsys.readouterr().out
    for fold in (0, 1):
        assert (
            f"fold{fold} goes on from epoch 4 to 6: "
            "the learning rate rises again to where a schedule of 6 epochs stands" in message
        )
        assert (
            epochs_of(run, fold) == ["1", "2", "3", "4", "5", "6"]
            and (run / f"fold{fold}" / "best_epoch6.pt").is_file()
        )
        assert not np.array_equal(embeddings(run, fold), embeddings(finished / "run", fold))
    content = json.loads((run / "args.json").read_text())
    assert content["settings"]["epochs"] == 6 and content["went_on"][0]["before"] == {"epochs": 4}
    assert content["hash"] == settings_hash(open_run(run).config)
    capsys.readouterr()
    assert resumed(run) == 0 and "finished before: fold0, fold1" in capsys.readouterr().out
    assert helpers.run_training(run.parent, "run", **LONG | {"epochs": 6}, resume="auto") == 0


def test_a_run_that_time_ended_goes_on_with_more_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helpers.run_training(tmp_path, "run", epochs=3, max_minutes=1e-6, fold=0) == 0
    assert epochs_of(tmp_path / "run", 0) == ["1"]
    assert resumed(tmp_path / "run", "--max_minutes=9") == 0
    assert "fold0 goes on from epoch 1 to 3" in capsys.readouterr().out and epochs_of(
        tmp_path / "run", 0
    ) == ["1", "2", "3"]


def test_a_run_goes_on_from_the_checkpoint_file_that_is_named(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untouched = (run / "fold1" / "last.pt").stat().st_mtime_ns
    (run / "fold0" / "oof.npz").write_bytes(b"as if it had ended elsewhere")
    assert resumed(run / "fold0" / "ckpt_epoch2.pt") == 0
    assert (
        f"fold0 goes on from {run / 'fold0' / 'ckpt_epoch2.pt'} (epoch 2)"
        in capsys.readouterr().out
    )
    np.testing.assert_array_equal(
        embeddings(run, 0), embeddings(finished / "run", 0)
    )  # to the same end, bit for bit
    assert (run / "fold0" / "last_epoch4.pt").is_file() and (
        run / "fold1" / "last.pt"
    ).stat().st_mtime_ns == untouched


def test_weights_alone_are_gone_on_from_with_a_new_optimizer(
    finished: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "fold0" / "ckpt_epoch2.pt"
    kept = checkpoints.load_checkpoint(file, helpers.CPU)
    checkpoints.save_checkpoint(
        run / "fold0" / "best_epoch2.pt", {name: kept[name] for name in ("model", "epoch")}
    )
    assert resumed(run / "fold0" / "best_epoch2.pt") == 0
    assert "it holds weights alone, so the optimizer starts anew" in capsys.readouterr().out
    assert epochs_of(run, 0) == ["1", "2", "3", "4"]
    assert not np.array_equal(embeddings(run, 0), embeddings(finished / "run", 0))


def test_a_file_that_cannot_be_gone_on_from_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run / "fold0" / "motion_encoder.pt"
    checkpoints.save_checkpoint(other, {"weight": torch.zeros(2)})
    assert resumed(other) == 1
    assert (
        f"error: {other}: is no checkpoint of a training (name a last.pt" in capsys.readouterr().err
    )
    assert resumed(run / "fold0" / "ckpt_epoch2.pt", "--fold=1") == 1
    assert (
        f"--fold: 1, but {run / 'fold0' / 'ckpt_epoch2.pt'} is of fold 0" in capsys.readouterr().err
    )
    assert resumed(tmp_path / "nowhere") == 1
    assert "nowhere: no run to resume there" in capsys.readouterr().err
