"""Time to score: the flags of the training, the baseline, the data it needs."""

from pathlib import Path

import pytest

import helpers
from motret.benchmark import subprocesses, time_to_score
from motret.benchmark.subprocesses import TimedProcess
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.errors import DataError


def test_the_baseline_is_compared_with_our_score_at_its_wall_time(tmp_path, monkeypatch):
    truth = (helpers.challenge() / "test" / "gt.csv").read_text().splitlines()[1:]
    config = base.build_config(
        BenchConfig,
        {"data_dir": helpers.challenge(), "baseline_command": "baseline.py {data} --to {out}"},
    )
    wrong = {
        query: [k for k in range(1, 13) if k != int(right)]
        for query, right in (line.split(",") for line in truth)
    }

    def timed(command):
        assert command[:2] == ["baseline.py", str(helpers.challenge())]
        header = ",".join(["query_id", *(f"candidate_{k}" for k in range(1, 11))])
        rows = [
            ",".join(
                map(str, [line.split(",")[0], line.split(",")[1], *wrong[line.split(",")[0]][:9]])
            )
            for line in truth
        ]
        Path(command[3]).write_text("\n".join([header, *rows]) + "\n")
        return TimedProcess(50.0, ())

    monkeypatch.setattr(subprocesses, "run_timed", timed)
    measurement = time_to_score.compare_with_baseline(
        config, tmp_path, [0.3, 0.6, 0.9], [20, 40, 60]
    )
    assert measurement.value == "0.6000; the baseline's 1.0000 after 50 s"


def test_time_to_score_needs_the_ground_truth(tmp_path):
    config = base.build_config(BenchConfig, {"data_dir": tmp_path})
    with pytest.raises(DataError, match=r"gt\.csv: no such file"):
        time_to_score.measure_time_to_score(config, tmp_path)


def test_only_settings_that_differ_from_their_defaults_go_to_the_training():
    config = base.build_config(
        BenchConfig,
        {"epochs": 3, "text_weights": "none", "unfreeze_text": True, "width": 256, "lr": 1e-3},
    )
    assert time_to_score.changed_flags(config) == [
        "--text_weights=none",
        "--unfreeze_text",
        "--epochs=3",
        "--lr=0.001",
    ]
