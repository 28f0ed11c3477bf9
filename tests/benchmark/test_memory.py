"""Memory: what a motion adds, and the generated data that are measured."""

from pathlib import Path

import numpy as np
import pytest

import helpers
from motret.benchmark import subprocesses
from motret.benchmark.memory import (
    FRAMES,
    measure_memory,
    measure_validation,
    write_random_motions,
    write_random_run,
)
from motret.benchmark.subprocesses import PeakMemory
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.data import dataset
from motret.data.features import feature_width
from motret.evaluation import local_score
from motret.runs.run import open_run


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_a_second_copy_of_all_motions_misses_the_goal(tmp_path, monkeypatch):
    packed = FRAMES * 2 * feature_width(2) * 2  # of one motion, as float16
    peaks = {"prepare": iter([100e6, 100.16e6]), "train": iter([200e6, 200e6 + 32 * packed])}
    monkeypatch.setattr(
        subprocesses,
        "run_watched",
        lambda command: (PeakMemory(int(next(peaks[Path(command[1]).stem])), 0), ""),
    )
    config = base.build_config(BenchConfig, {"quick": True})
    measurements = measure_memory(config, tmp_path)
    assert [measurement.met for measurement in measurements] == [True, False]
    assert (
        "adds 5.0 KB" in measurements[0].value
        and f"adds {packed / 1e3:.1f} KB" in measurements[1].value
    )
    assert len(list((tmp_path / "48" / "data" / "motions").iterdir())) == 48


def test_random_motions_pass_the_data_check(tmp_path):
    write_random_motions(tmp_path / "data", 5)
    data = dataset.load_training(
        base.DataConfig(data_dir=tmp_path / "data", work_dir=tmp_path / "work"), jobs=1
    )
    assert len(data.training.ids) == 5 and not data.training.skipped
    assert data.store.features[0].nbytes * FRAMES * 5 == data.store.features.nbytes
    assert np.load(data.training.paths[0]).shape == (FRAMES, 384)
    assert data.store.config.up == "+y" and len(set(data.store.digests)) == 5


def test_validation_times_the_score_that_validate_py_prints(tmp_path, monkeypatch):
    """`out_of_fold_score` accepts the random run, and the measured process calls it."""
    run = write_random_run(tmp_path / "run", 12, 36)
    local = local_score.out_of_fold_score([open_run(run.folder)], helpers.folds(12, 1))
    assert local.score.motions == 12 and 0 < local.score.mean < 1
    commands = []
    monkeypatch.setattr(
        subprocesses,
        "run_watched",
        lambda command: commands.append(command) or (PeakMemory(2 * 10**9, 0), "0.5"),
    )
    (measurement,) = measure_validation(
        base.build_config(BenchConfig, {"quick": True}), tmp_path / "scratch"
    )
    assert "local_score.out_of_fold_score([run], folds)" in commands[0][2]
    assert measurement.met is False
