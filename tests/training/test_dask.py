"""Folds on the workers of a dask cluster, by joblib.parallel_config."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

import helpers
from motret.config.base import ROOT
from motret.training import train as train_module
from motret.utils import parallel

distributed = pytest.importorskip("distributed", reason="dask is not installed")


def has_trained() -> bool:
    return "motret.training.fit" in sys.modules


def test_folds_on_a_cluster_of_three_workers_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(ROOT / "solution"), str(ROOT / "tests"), *sys.path]
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, paths)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = helpers.challenge()
    values = {"text_vocabulary": 1024}
    assert helpers.run_training(tmp_path, "one", data, **values) == 0
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        assert parallel.context_backend() == "dask"
        assert helpers.run_training(tmp_path, "many", data, fold_jobs=2, **values) == 0
        assert any(client.run(has_trained).values())
        squares = parallel.worker_pool(3, 5)(joblib.delayed(pow)(number, 2) for number in range(5))
        assert list(squares) == [0, 1, 4, 9, 16]
    assert "2 folds side by side" in capsys.readouterr().out
    for fold in range(2):
        one, many = (np.load(tmp_path / name / f"fold{fold}/oof.npz") for name in ("one", "many"))
        for name in one.files:
            assert np.array_equal(one[name], many[name]), name
    assert train_module._backend_of(helpers.config(joblib_backend="multiprocessing")) == (
        "multiprocessing"
    )
