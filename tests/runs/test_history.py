"""metrics.csv: every epoch and loss term as it was, and files of earlier versions."""

import csv
import math

from helpers import epoch_stats
from motret.runs import history


def test_loss_terms_are_columns_of_metrics_csv_and_come_back(tmp_path):
    epochs = [epoch_stats(1), epoch_stats(2, loss_terms={"global": 1.5, "part": 0.25})]
    history.write_metrics(tmp_path / "metrics.csv", epochs)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert math.isnan(float(first["loss_global"])) and "loss_terms" not in first
    assert (second["loss_global"], second["loss_part"]) == ("1.5", "0.25")
    assert [stats.loss_terms for stats in history.read_metrics(tmp_path / "metrics.csv")] == [
        {},
        {"global": 1.5, "part": 0.25},
    ]


def test_a_file_without_loss_terms_is_read(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,seconds,lr,tau,train_loss,r1\n1,2.0,1e-3,0.07,3.0,0.5\n"
    )
    (stats,) = history.read_metrics(tmp_path / "metrics.csv")
    assert stats.loss_terms == {} and stats.train_loss == 3 and stats.t2m_r1 == 0.5


def test_the_log_shows_the_terms_where_there_are_several():
    alone, several = {"global": 1.0}, {"global": 1.0, "part": 0.5}
    assert "train loss 1.0000 (global 1.0000, part 0.5000)" in history.describe_epoch(
        epoch_stats(loss_terms=several)
    )
    assert "(" not in history.describe_epoch(epoch_stats(loss_terms=alone))
