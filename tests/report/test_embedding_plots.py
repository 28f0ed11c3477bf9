"""Figures of embeddings: each has its size, draws all its data and cuts nothing off."""

from pathlib import Path

import numpy as np

from helpers import check, has
from motret.report import embedding_plots, plot_style
from motret.report.embedding_plots import Map2D

RNG = np.random.default_rng(0)


def test_a_heatmap_labels_its_groups(tmp_path: Path) -> None:
    similarity = np.eye(30) + RNG.normal(0, 0.1, (30, 30))
    embedding_plots.plot_heatmap(
        tmp_path / "named.png", "by word", similarity, ["walks"] * 20 + ["jumps"] * 10
    )
    embedding_plots.plot_heatmap(tmp_path / "plain.png", "by word", similarity, [""] * 30)
    named, plain = check(tmp_path / "named.png", 8.4), check(tmp_path / "plain.png", 8.4)
    assert not np.array_equal(named, plain)


def test_maps_are_drawn_side_by_side_or_alone(tmp_path: Path) -> None:
    maps = [
        Map2D(name, RNG.normal(size=(9, 2)), RNG.normal(3, 1, size=(9, 2)))
        for name in ("before", "after")
    ]
    embedding_plots.plot_tsne(tmp_path / "two.png", "t-SNE", maps)
    embedding_plots.plot_tsne(tmp_path / "one.png", "t-SNE", maps[:1])
    for name, height in (("two", 5.6), ("one", 9.0)):
        picture = check(tmp_path / f"{name}.png", height)
        assert has(picture, embedding_plots.PAIR_COLOUR)


def test_similarities_of_matching_pairs_and_negatives(tmp_path: Path) -> None:
    embedding_plots.plot_similarities(
        tmp_path / "s.png", "similarities", *(RNG.normal(mean, 0.1, 50) for mean in (0.6, 0, 0.4))
    )
    assert has(check(tmp_path / "s.png", 4.8), plot_style.BLUE)
    embedding_plots.plot_similarities(
        tmp_path / "same.png", "a constant model", np.ones(5), np.ones(9), np.ones(5)
    )
    check(tmp_path / "same.png")
