"""Pictures: each is of its size, shows what it is given, and cuts nothing off."""

from pathlib import Path

import numpy as np
import pytest

from helpers import body, check, has, pixels
from motret.report import plots
from motret.report.plots import History, Map2D
from motret.skeleton import PARTS

RNG = np.random.default_rng(0)
ALL = {"all weights": 1.0}


def history(epochs: int = 6, every: int = 2, **left_out: None) -> History:
    number = np.arange(1, epochs + 1.0)
    columns = {"epoch": number, "lr": 1e-4 / number, "tau": 0.07 - number / 1e3, "train_loss": 3 / number}
    for name in ("val_loss", "score", "error", "t2m_r1", "t2m_r5", "t2m_r10", "spread"):
        columns[name] = np.where(number % every == 0, {"error": 0.02, "t2m_r1": 0.1, "t2m_r5": 0.3}.get(name, 0.5), np.nan)
    return History({name: values for name, values in columns.items() if name not in left_out}, kept=epochs - epochs % every)


def test_curves_of_one_fold_and_of_several(tmp_path: Path) -> None:
    plots.plot_curves(tmp_path / "one.png", "one", [history()], ALL | {"loaded backbone": 0.1}, "training")
    one = check(tmp_path / "one.png", 6.2)
    assert has(one, plots.BLUE) and has(one, plots.ORANGE) and has(one, plots.GREEN)
    plots.plot_curves(tmp_path / "all.png", "three", [history(), history(8), history(5, 1)], ALL, "training")
    assert not np.array_equal(check(tmp_path / "all.png", 6.2), one)


def test_long_numbers_beside_the_curves_have_room(tmp_path: Path) -> None:
    steady = history(6, 1)
    steady.columns["tau"][:] = 0.07 + 1e-5 * np.arange(6)
    steady.columns["score"][:] = 0.123456 + 1e-6 * np.arange(6)
    plots.plot_curves(tmp_path / "one.png", "one", [steady], ALL, "training")
    check(tmp_path / "one.png", 6.2)


def test_what_was_not_measured_is_left_out(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    empty = dict.fromkeys(("val_loss", "score", "error", "t2m_r1", "t2m_r5", "t2m_r10", "spread"))
    plots.plot_curves(tmp_path / "full.png", "nothing held out", [history(1, **empty)], ALL, "training")
    plots.plot_loss_curve(tmp_path / "loss.png", "loss", history(1, **empty), "training")
    for name in ("full", "loss"):
        assert not has(check(tmp_path / f"{name}.png"), plots.ORANGE)
    assert not recwarn.list


def test_the_mean_of_folds_runs_between_them_over_the_epochs_they_share() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    short, long = history(3, 1), history(6, 2)
    plots._draw_curve(ax, plots._Curve("train_loss", "loss", plots.BLUE, times=2.0), [short, long])
    *thin, mean = ax.lines
    assert [len(line.get_xdata()) for line in thin] == [3, 6]
    np.testing.assert_array_equal(mean.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(mean.get_ydata(), 6 / np.arange(1, 4))
    assert not plots._draw_curve(ax, plots._Curve("gone", "", plots.BLUE), [short])


@pytest.mark.parametrize("persons", [1, 2])
def test_attention_with_key_poses_of_everybody(tmp_path: Path, persons: int) -> None:
    positions = body(47, persons)
    weights, edges = RNG.dirichlet(np.ones(7 * persons), persons).reshape(persons, persons, 7), np.arange(8) * 0.2
    caption = "it costs $5 and <b>all</b> {this} \\frac " * 12
    plots.plot_attention(tmp_path / "a.png", "whole", caption, weights, edges, positions, 30.0, "layer 1 of 1")
    found = check(tmp_path / "a.png", 3.13 + 1.67 * persons)
    assert has(found, plots.BLUE) and has(found, plots.ORANGE) == (persons == 2)
    if persons == 1:
        plots.plot_attention(tmp_path / "b.png", "whole", caption, weights, edges, positions, 30.0, "layer 1 of 1", PARTS["left_leg"])
        assert (check(tmp_path / "b.png") < 0.9).sum() > (found < 0.9).sum()  # the leg is drawn thick


def test_figures_stand_where_people_do_and_never_far_apart() -> None:
    near = body(30)
    centre = near[:, :, :1].copy()
    near = near - centre + centre * (1, 1, 1) * 0 + np.array([[[0, 0.95, 0]], [[1.0, 0.95, 0]]])
    seen = plots.project_to_side_view(near, turned=0.0, raised=0.0)
    np.testing.assert_allclose(seen[..., 1], near[..., 1])
    np.testing.assert_allclose(np.abs(seen[:, 1, 0, 0] - seen[:, 0, 0, 0]), 1.0, atol=0.02)
    np.testing.assert_allclose(seen[:, :, 0, 0].mean(axis=1), 0, atol=1e-9)
    far = near + np.array([[[0, 0, 0]], [[20.0, 0, 0]]])
    apart = plots.project_to_side_view(far)[:, :, 0]
    assert (np.linalg.norm(apart[:, 1] - apart[:, 0], axis=-1) <= plots.NEAR_DISTANCE + 1e-6).all()
    size = np.ptp(plots.project_to_side_view(far)[..., 1], axis=-1)
    assert (size > 1.4).all()


def test_a_heatmap_names_its_groups(tmp_path: Path) -> None:
    similarity = np.eye(30) + RNG.normal(0, 0.1, (30, 30))
    plots.plot_heatmap(tmp_path / "named.png", "by word", similarity, ["walks"] * 20 + ["jumps"] * 10)
    plots.plot_heatmap(tmp_path / "plain.png", "by word", similarity, [""] * 30)
    named, plain = check(tmp_path / "named.png", 8.4), check(tmp_path / "plain.png", 8.4)
    assert not np.array_equal(named, plain)


def test_two_planes_side_by_side_and_one_alone(tmp_path: Path) -> None:
    maps = [Map2D(name, RNG.normal(size=(9, 2)), RNG.normal(3, 1, size=(9, 2))) for name in ("before", "after")]
    plots.plot_tsne(tmp_path / "two.png", "t-SNE", maps)
    plots.plot_tsne(tmp_path / "one.png", "t-SNE", maps[:1])
    for name, height in (("two", 5.6), ("one", 9.0)):
        found = check(tmp_path / f"{name}.png", height)
        assert has(found, "#B5B5B5")


def test_similarities_of_right_and_wrong_pairs(tmp_path: Path) -> None:
    plots.plot_similarities(tmp_path / "s.png", "right and wrong", *(RNG.normal(at, 0.1, 50) for at in (0.6, 0, 0.4)))
    assert has(check(tmp_path / "s.png", 4.8), plots.BLUE)
    plots.plot_similarities(tmp_path / "same.png", "a constant model", np.ones(5), np.ones(9), np.ones(5))
    check(tmp_path / "same.png")


def test_the_same_arrays_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plots.plot_loss_curve(tmp_path / f"{name}.png", "loss", history(), "training")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.png", "b.png"] and len(pixels(tmp_path / "a.png"))
