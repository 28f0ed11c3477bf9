"""Training curves: each figure has its size, draws all its data and cuts nothing off."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import check, has, pixels
from motret.evaluation import metrics
from motret.report import curve_plots, plot_style
from motret.report.curve_plots import Curve, History

ALL = {"all weights": 1.0}
MEASURED = ("val_loss", "score", "error", "t2m_r1", "t2m_r5", "t2m_r10", "spread")


def history(epochs: int = 6, every: int = 2, **missing: None) -> History:
    epoch = np.arange(1, epochs + 1.0)
    columns = {
        "epoch": epoch,
        "lr": 1e-4 / epoch,
        "tau": 0.07 - epoch / 1e3,
        "train_loss": 3 / epoch,
    }
    values = {"error": 0.02, "t2m_r1": 0.1, "t2m_r5": 0.3}
    for name in MEASURED:
        columns[name] = np.where(epoch % every == 0, values.get(name, 0.5), np.nan)
    return History(
        {name: values for name, values in columns.items() if name not in missing},
        selected_epoch=epochs - epochs % every,
    )


def test_curves_of_one_fold_and_of_several(tmp_path: Path) -> None:
    curve_plots.plot_curves(
        tmp_path / "one.png", "one", [history()], ALL | {"loaded backbone": 0.1}, "training", 32
    )
    one = check(tmp_path / "one.png", 6.2)
    assert has(one, plot_style.BLUE) and has(one, plot_style.ORANGE) and has(one, plot_style.GREEN)
    curve_plots.plot_curves(
        tmp_path / "all.png", "three", [history(), history(8), history(5, 1)], ALL, "training", 32
    )
    assert not np.array_equal(check(tmp_path / "all.png", 6.2), one)


def test_long_tick_labels_fit(tmp_path: Path) -> None:
    steady = history(6, 1)
    steady.columns["tau"][:] = 0.07 + 1e-5 * np.arange(6)
    steady.columns["score"][:] = 0.123456 + 1e-6 * np.arange(6)
    curve_plots.plot_curves(tmp_path / "one.png", "one", [steady], ALL, "training", 32)
    check(tmp_path / "one.png", 6.2)


def test_columns_that_were_not_measured_are_not_drawn(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    empty = dict.fromkeys(MEASURED)
    curve_plots.plot_curves(
        tmp_path / "full.png", "nothing held out", [history(1, **empty)], ALL, "training", 32
    )
    curve_plots.plot_loss_curve(tmp_path / "loss.png", "loss", history(1, **empty), "training")
    for name in ("full", "loss"):
        assert not has(check(tmp_path / f"{name}.png"), plot_style.ORANGE)
    assert not recwarn.list


def test_the_loss_curve_has_the_terms_where_there_are_several(tmp_path: Path) -> None:
    loss = history()
    for name in ("global", "part"):
        loss.columns[f"loss_{name}"] = 1 / loss.columns["epoch"]
        curve_plots.plot_loss_curve(tmp_path / f"{name}.png", "loss", loss, "training")
    assert not has(check(tmp_path / "global.png"), plot_style.GREEN)
    picture = check(tmp_path / "part.png")
    assert has(picture, plot_style.GREEN) and has(picture, plot_style.PINK)


def test_the_mean_of_folds_covers_the_epochs_they_share() -> None:
    ax = Figure().subplots()
    short, long = history(3, 1), history(6, 2)
    curve_plots.draw_curve(
        ax, Curve("train_loss", "loss", plot_style.BLUE, factor=2.0), [short, long]
    )
    *thin, mean = ax.lines
    assert [len(line.get_xdata()) for line in thin] == [3, 6]
    np.testing.assert_array_equal(mean.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(mean.get_ydata(), 6 / np.arange(1, 4))
    assert not curve_plots.draw_curve(ax, Curve("missing", "", plot_style.BLUE), [short])


def test_the_same_arrays_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        curve_plots.plot_loss_curve(tmp_path / f"{name}.png", "loss", history(), "training")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.png", "b.png"] and len(
        pixels(tmp_path / "a.png")
    )


def test_chance_is_that_of_the_pool() -> None:
    ax = Figure().subplots()
    curve_plots._draw_score_context(ax, [history(every=1)], pool=6)
    (line,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert list(line.get_ydata()) == [metrics.chance_score(6)] * 2
