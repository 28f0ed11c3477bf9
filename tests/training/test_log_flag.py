"""train.py --log: the curves have the names and values of metrics.csv, in every fold."""

import csv
import json
from pathlib import Path

import pytest

import helpers
from motret.runs import run as run_module
from motret.runs.run import fold_key, open_run


def metrics(fold_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Column of metrics.csv -> (epoch, value), without NaN."""
    with (fold_dir / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        name: points
        for name in rows[0].keys() - {"epoch"}
        if (points := [(int(r["epoch"]), float(r[name])) for r in rows if r[name] != "nan"])
    }


def curves(fold_dir: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(fold_dir)).Reload()
    return {
        name: [(point.step, pytest.approx(point.value)) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_shows_metrics_csv_of_folds_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert helpers.run_training(tmp_path, "a", log="tensorboard", fold_jobs=2, eval_interval=2) == 0
    for fold in (0, 1):
        points = metrics(tmp_path / "a" / f"fold{fold}")
        assert curves(tmp_path / "a" / f"fold{fold}") == points
        assert [epoch for epoch, _ in points["train_loss"]] == [1, 2]
        assert [epoch for epoch, _ in points["score"]] == [2]


@pytest.mark.parametrize("file", ["last", "best"])  # epoch 4 is in last.pt, or is trained again
def test_a_killed_fold_goes_on_in_its_curves(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    values = {"log": "tensorboard", "fold": 0, "epochs": 5, "eval_interval": 2}
    with monkeypatch.context() as patch:
        helpers.killed_after(patch, file, 2)
        with pytest.raises(helpers.KilledError):
            helpers.run_training(tmp_path, "a", **values)
    assert [epoch for epoch, _ in curves(tmp_path / "a" / "fold0")["train_loss"]] == [1, 2, 3, 4]
    assert helpers.run_training(tmp_path, "a", resume="auto", **values) == 0
    assert curves(tmp_path / "a" / "fold0") == metrics(tmp_path / "a" / "fold0")


def test_the_flag_changes_no_model_and_may_be_given_on_resuming(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert helpers.run_training(tmp_path, "a", fold=0) == 0
    plain = open_run(tmp_path / "a")
    assert (
        helpers.run_training(tmp_path, "a", fold=0, resume="auto", epochs=3, log="tensorboard") == 0
    )
    epochs = [epoch for epoch, _ in curves(tmp_path / "a" / "fold0")["train_loss"]]
    assert epochs == [1, 2, 3]
    logged = helpers.config(log="tensorboard")
    assert run_module.settings_hash(logged) == run_module.settings_hash(helpers.config())
    assert plain.config.log == "none"


def test_the_key_of_a_fold_stays_and_a_new_run_of_the_name_has_another(tmp_path: Path) -> None:
    run = helpers.made_run(tmp_path, "a")
    keys = {fold_key(run, fold) for fold in (0, 1, None)}
    assert len(keys) == 3 and {fold_key(run, fold) for fold in (0, 1, None)} == keys
    content = json.loads((run.folder / "args.json").read_text())
    (run.folder / "args.json").write_text(json.dumps(content | {"started": "another day"}))
    assert not keys & {fold_key(run, fold) for fold in (0, 1, None)}


def test_without_the_package_a_run_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else real(name)
    )
    assert helpers.run_training(tmp_path, "a", log="wandb") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --log wandb: ") and error.count("\n") == 1
    assert not (tmp_path / "a").exists()
