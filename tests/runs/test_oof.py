"""Out-of-fold files: they come back as they were written, and broken ones are errors."""

from pathlib import Path

import numpy as np
import pytest

import helpers
from motret.errors import MotretError, RunError
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.run import Run


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def a_run(folder):
    return Run(
        folder, helpers.config(), {}, "data-a", "folds-a", helpers.training_data().store.config, 2
    )


def test_out_of_fold_embeddings_come_back_as_they_were(tmp_path):
    run = a_run(tmp_path)
    rng = np.random.default_rng(0)
    out = OutOfFold(
        np.array(["7", "x"]),
        np.array([0, 5]),
        rng.normal(size=(2, 3)),
        rng.normal(size=(4, 3)),
        np.array([0, 0, 1, 1]),
    )
    oof.save_out_of_fold(run.fold_dir(1) / "oof.npz", out)
    back = oof.load_out_of_fold(run, 1)
    for name in ("ids", "data_idx", "motion", "text", "motion_idx"):
        np.testing.assert_array_equal(getattr(back, name), getattr(out, name))
    np.testing.assert_allclose(back.similarity(), out.text @ out.motion.T)
    assert run.finished_folds() == [1] and not run.has_full_model()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_broken_embeddings_are_an_error(tmp_path, content):
    run = a_run(tmp_path)
    run.fold_dir(0).mkdir()
    (run.fold_dir(0) / "oof.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"oof\.npz: is no whole \.npz file"):
        oof.load_out_of_fold(run, 0)


def test_embeddings_of_bytes_are_an_error(tmp_path):
    run = a_run(tmp_path)
    path = run.fold_dir(0) / "oof.npz"
    oof.save_out_of_fold(path, OutOfFold(*map(np.zeros, (1, 1, (1, 3), (1, 3), 1))))
    arrays = {name: array.astype("S4") for name, array in np.load(path).items()}
    np.savez(path, **arrays)
    with pytest.raises(RunError, match=r"oof\.npz: .*\|S4"):
        oof.load_out_of_fold(run, 0)


def test_embeddings_with_objects_in_them_are_not_unpickled(tmp_path):
    run = a_run(tmp_path)
    run.fold_dir(0).mkdir()
    np.savez(
        run.fold_dir(0) / "oof.npz",
        **dict.fromkeys(
            ("ids", "data_idx", "motion", "text", "motion_idx"),
            np.array([Harmful(tmp_path / "harm")]),
        ),
    )
    with pytest.raises(MotretError):
        oof.load_out_of_fold(run, 0)
    assert not (tmp_path / "harm").exists()


def test_arrays_with_former_names_are_read(tmp_path):
    run = a_run(tmp_path)
    run.fold_dir(0).mkdir()
    vectors, index = np.eye(3), np.arange(3)
    former = {"ids": index.astype(str), "row": index + 5, "owner": index[::-1]}
    np.savez(run.fold_dir(0) / "oof.npz", motion=vectors, text=vectors, **former)
    out = oof.load_out_of_fold(run, 0)
    assert out.data_idx.tolist() == [5, 6, 7] and out.motion_idx.tolist() == [2, 1, 0]
