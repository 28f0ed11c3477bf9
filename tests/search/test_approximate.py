"""Approximate search by faiss: where it is installed it finds nearly what exact search finds."""

import sys
from pathlib import Path

import numpy as np
import pytest

from motret.errors import ConfigError, DataError
from motret.search import approximate, index_files
from motret.search.approximate import ApproximateSearch, build_approximate, recall
from motret.search.exact import Ranking, search_exactly
from motret.search.index_files import Index, Manifest, ModelIdentity, open_index, open_writer

DIM, ROWS = 16, 4000


def needs_faiss() -> None:
    pytest.importorskip("faiss", reason=f"faiss is not installed: {approximate.INSTALL}")


def clustered(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(40, DIM))
    vectors = centers[rng.integers(0, 40, count)] + rng.normal(0, 0.5, (count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def add(folder: Path, count: int, seed: int) -> None:
    ids = [f"{seed}-{number}" for number in range(count)]
    new = Manifest("int8", DIM, ModelIdentity("run", ("fold0",), ("c",), ()))
    with open_writer(folder, new) as writer:
        writer.append(ids, ids, folder, clustered(count, seed))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """4,000 motions in the approximate index, and 100 that were added later."""
    needs_faiss()
    monkeypatch.setattr(index_files, "SHARD_ROWS", 1500)
    monkeypatch.setattr(approximate, "MIN_ROWS", 1000)
    monkeypatch.setattr(approximate, "TRAINING_ROWS_PER_LIST", 10)
    add(tmp_path / "index", ROWS, seed=1)
    with open_writer(tmp_path / "index") as writer:
        assert build_approximate(writer) == "IVF256,PQ4"
    add(tmp_path / "index", 100, seed=2)
    return open_index(tmp_path / "index")


def test_it_finds_nearly_all_and_scores_exactly(index: Index) -> None:
    queries = clustered(20, seed=3)
    exact = search_exactly(index, queries, 10, jobs=1)
    found = ApproximateSearch(index).search(queries, 10, probes=64, jobs=1)
    assert recall(found, exact) > 0.95
    is_common = found.rows == exact.rows
    np.testing.assert_allclose(found.scores[is_common], exact.scores[is_common], atol=1e-5)


def test_motions_that_were_added_later_are_found(index: Index) -> None:
    queries = index.vectors(np.array([ROWS, ROWS + 99]))
    found = ApproximateSearch(index).search(queries, 3, probes=1, jobs=1)
    assert found.rows[:, 0].tolist() == [ROWS, ROWS + 99]


def test_where_too_few_are_looked_at_the_last_scores_are_no_numbers_of_motions(
    index: Index,
) -> None:
    found = ApproximateSearch(index).search(clustered(2, seed=3), ROWS, probes=1, jobs=1)
    is_motion = np.isfinite(found.scores)
    assert not is_motion.all() and (found.rows[is_motion] < index.rows).all()
    for rows, listed in zip(found.rows, is_motion, strict=True):
        assert len(set(rows[listed])) == listed.sum()


def test_a_new_one_replaces_it_and_a_reader_keeps_the_old(index: Index) -> None:
    with open_writer(index.folder) as writer:
        build_approximate(writer)
    new = open_index(index.folder)
    queries = clustered(3, seed=4)
    for opened, rows in ((index, ROWS), (new, ROWS + 100)):
        searcher = ApproximateSearch(opened)
        assert searcher.rows == rows
        searcher.search(queries, 10, probes=8)
    index_files.check_index(new)


def test_a_broken_one_is_named(index: Index) -> None:
    entry = index.manifest.approximate
    assert entry is not None
    path = index.folder / entry.file
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="is no approximate index") as caught:
        ApproximateSearch(index)
    assert caught.value.path == str(path) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not what was written"):
        index_files.check_index(index)


def test_too_few_motions_are_an_error(tmp_path: Path) -> None:
    needs_faiss()
    add(tmp_path / "index", 50, seed=0)
    with (
        open_writer(tmp_path / "index") as writer,
        pytest.raises(ConfigError, match="--ann: 50 motions, too few"),
    ):
        build_approximate(writer)


def test_without_faiss_the_command_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError) as caught:
        approximate.load_faiss("--ann")
    line = "--ann: needs the package faiss (install it: `pip install faiss-cpu`)"
    assert str(caught.value) == line


@pytest.mark.parametrize(("rows", "lists"), [(10_000, 512), (10**6, 4096), (10**8, 32768)])
def test_lists_grow_with_the_root_of_the_motions(rows: int, lists: int) -> None:
    assert approximate.list_count(rows) == lists


@pytest.mark.parametrize(("dim", "size"), [(256, 64), (8, 2), (6, 1), (3, 1), (10, 2)])
def test_a_code_is_a_quarter_of_the_numbers_or_less(dim: int, size: int) -> None:
    assert approximate.code_size(dim) == size


def test_recall_counts_motions_that_both_list() -> None:
    exact = Ranking(np.array([[1, 2], [3, 4]]), np.zeros((2, 2)))
    other = Ranking(np.array([[2, 9], [4, 3]]), np.zeros((2, 2)))
    assert recall(other, exact) == 0.75
