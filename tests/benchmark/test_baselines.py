"""Preparation and inference compared with their lower bounds."""

import pytest

import helpers
from motret.benchmark import baselines
from motret.benchmark.baselines import Growth
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.data import dataset
from motret.formats.queries import read_queries


def test_every_repeat_of_preparation_packs_again_and_the_medians_count(tmp_path, monkeypatch):
    config = base.build_config(BenchConfig, {"data_dir": helpers.challenge(), "jobs": 1})
    reused, real, reading = (
        [],
        dataset.load_training,
        iter([9.0, 1.0, 4.0, 2.0]),
    )  # the first fills the page cache
    monkeypatch.setattr(
        dataset, "load_training", lambda *args: reused.append(real(*args).cache_hit)
    )
    monkeypatch.setattr(baselines, "_read_seconds", lambda _: next(reading))
    monkeypatch.setattr(baselines.time, "perf_counter", iter([0, 30, 0, 8, 0, 10]).__next__)
    (measurement,) = baselines.measure_preparation(config, tmp_path)
    assert reused == [False] * 3 and measurement.value.startswith("5.0x") and measurement.met


def test_growth_is_linear_where_each_of_many_queries_takes_as_long_as_each_of_few():
    linear = {count: [5 + 0.1 * count] for count in (3, 30, 300)}
    quadratic = {
        count: [5 + 0.1 * count + 0.001 * count**2] for count in (3, 30, 300)
    }  # as a matrix of queries x candidates grows
    assert Growth.of(linear).linear and not Growth.of(quadratic).linear
    growth = Growth.of(linear)
    assert (growth.up_to_usual, growth.beyond, growth.noise) == pytest.approx((0.1, 0.1, 0))


def test_growth_counts_the_fastest_repeats_and_allows_for_start_up_noise():
    growth = Growth.of({30: [8.2, 8.0, 9.9], 3: [5.3, 6.0, 5.9], 300: [40.0]})
    assert (growth.up_to_usual, growth.beyond, growth.noise) == pytest.approx(
        (2.7 / 27, 32 / 270, 0.8 / 27)
    )
    assert growth.linear == (32 / 270 <= 1.3 * 0.1 + 0.8 / 27)


def test_a_motion_that_comes_again_is_copied_not_linked(tmp_path):
    training = dataset.read_training(helpers.challenge())
    first, second = (
        baselines.write_queries(training, 2, tmp_path / str(skip), skip) for skip in (0, 1)
    )
    queries = read_queries(first)
    paths = [path for query in queries for path in query.paths]
    assert [len(query.paths) for query in queries] == [24, 24] and len(
        {path.stat().st_ino for path in paths}
    ) == 48
    for path, source in zip(paths, training.paths * 2, strict=True):
        assert path.read_bytes() == source.read_bytes()
    assert [query.captions[0] for query in queries] == [
        training.captions[index][0] for index in (0, 1)
    ]
    assert [query.captions[0] for query in read_queries(second)] == [
        training.captions[index][0] for index in (1, 2)
    ]
