"""Exact search lists what sorting all products lists."""

from pathlib import Path

import numpy as np
import pytest

from motret.search import exact, index_files
from motret.search.exact import search_exactly
from motret.search.index_files import Index, Manifest, ModelIdentity, Numbers, open_index

DIM, ROWS = 32, 3000


def make_index(folder: Path, vectors: np.ndarray, numbers: Numbers) -> Index:
    model = ModelIdentity("run", ("fold0",), ("c",), ())
    ids = [str(number) for number in range(len(vectors))]
    with index_files.open_writer(folder, Manifest(numbers, vectors.shape[1], model)) as writer:
        writer.append(ids, ids, folder, vectors)
    return open_index(folder)


@pytest.fixture(params=["int8", "float16"])
def index(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Vectors of which every tenth is there twice, in shards of 700 and blocks of 64."""
    monkeypatch.setattr(index_files, "SHARD_ROWS", 700)
    monkeypatch.setattr(exact, "BLOCK_NUMBERS", 64 * DIM)
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    vectors[1::10] = vectors[::10]
    return make_index(tmp_path / "index", vectors, request.param)


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)


def test_it_lists_what_sorting_lists(index: Index, queries: np.ndarray) -> None:
    products = queries @ index.vectors(np.arange(ROWS)).T
    ranking = search_exactly(index, queries, 20, jobs=2)
    order = np.argsort(-products, axis=1, kind="stable")[:, :20]
    expected = np.take_along_axis(products, order, axis=1)
    np.testing.assert_allclose(ranking.scores, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(ranking.rows, order)


def test_of_equal_motions_the_first_is_first(index: Index) -> None:
    query = index.vectors(np.array([730]))  # there again as 731
    assert search_exactly(index, query, 2, jobs=2).rows.tolist() == [[730, 731]]
    assert search_exactly(index, query, 1, jobs=2).rows.tolist() == [[730]]


def test_the_number_of_threads_changes_no_bit(index: Index, queries: np.ndarray) -> None:
    alone, three = (search_exactly(index, queries, 30, jobs) for jobs in (1, 3))
    np.testing.assert_array_equal(alone.rows, three.rows)
    np.testing.assert_array_equal(alone.scores, three.scores)


def test_more_than_all_are_all(index: Index, queries: np.ndarray) -> None:
    rows = search_exactly(index, queries, ROWS + 5, jobs=2).rows
    assert (np.sort(rows, axis=1) == np.arange(ROWS)).all()


def test_motions_before_the_first_row_are_left_out(index: Index, queries: np.ndarray) -> None:
    products = queries @ index.vectors(np.arange(ROWS)).T
    products[:, :1234] = -np.inf
    order = np.argsort(-products, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(search_exactly(index, queries, 7, 2, 1234).rows, order)
