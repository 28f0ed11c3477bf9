"""Approximate search by faiss, where an index outgrows exact search.

IVF-PQ: vectors are sorted into lists by the nearest of many centers, and kept as a few bytes each.
A query looks into the lists of its nearest centers (probes), and the best candidates are ranked
again by their exact products. Motions added since are searched exactly.
"""

import math
from typing import Any

import numpy as np

from motret.errors import ConfigError
from motret.search.exact import Ranking, best_of, score_rows, search_exactly
from motret.search.index_files import Index, IndexWriter, open_index
from motret.utils import files, reading

CANDIDATES = 1000
"""Motions of a query that are ranked again exactly."""
MIN_ROWS = 10_000
"""Motions of an approximate index at least; faiss learns 256 centers from 39 vectors each."""
TRAINING_ROWS_PER_LIST = 48
NUMBERS_PER_BYTE = 4
"""Numbers of a vector that become one byte."""
INSTALL = "pip install faiss-cpu"
SEED = 0


def load_faiss(needed_by: str, otherwise: str = "") -> Any:
    """The module faiss, an optional package. ConfigError where it is not installed."""
    try:
        import faiss
    except ImportError as error:
        fix = f"install it: `{INSTALL}`{otherwise}"
        raise ConfigError(needed_by, "needs the package faiss", fix) from error
    return faiss


def build_approximate(writer: IndexWriter) -> str:
    """Builds the approximate index of all motions; returns its form in words.

    It needs all codes and a sample of the vectors in memory. ConfigError where there are too few
    motions.
    """
    faiss = load_faiss("--ann")
    index = open_index(writer.folder)
    if index.rows < MIN_ROWS:
        problem = f"{index.rows} motions, too few for an approximate index"
        fix = f"leave it out: fewer than {MIN_ROWS} are searched exactly in no time"
        raise ConfigError("--ann", problem, fix)
    dim = index.manifest.dim
    lists, code_bytes = list_count(index.rows), code_size(dim)
    form = f"IVF{lists},PQ{code_bytes}"
    built = faiss.index_factory(dim, form, faiss.METRIC_INNER_PRODUCT)
    sample = min(index.rows, max(MIN_ROWS, lists * TRAINING_ROWS_PER_LIST))
    rows = np.random.default_rng(SEED).choice(index.rows, sample, replace=False)
    built.train(index.vectors(np.sort(rows)))
    for shard in index.shards:
        built.add(shard.decode(np.arange(shard.entry.rows)))
    with files.new_dir(writer.folder, "ivfpq", writer.folder) as tmp_dir:
        file = tmp_dir / "new.faiss"
        faiss.write_index(built, str(file))
        shard_names = [entry.name for entry in writer.manifest.shards]
        writer.replace_approximate(file, files.content_hash(form, shard_names), index.rows)
    return form


def list_count(rows: int) -> int:
    """Lists of an approximate index: the power of two nearest to four times the root."""
    return int(2 ** round(math.log2(4 * math.sqrt(rows))))


def code_size(dim: int) -> int:
    """Bytes of a vector of so many numbers: the largest divisor that is not above a quarter."""
    return next(size for size in range(max(1, dim // NUMBERS_PER_BYTE), 0, -1) if dim % size == 0)


class ApproximateSearch:
    """The opened approximate index of an index that has one."""

    def __init__(self, index: Index):
        entry = index.manifest.approximate
        assert entry is not None, "the index has no approximate one"
        faiss = load_faiss(str(index.folder), "; or give --exact")
        path = index.folder / entry.file
        fix = "build it again: `python solution/index.py build FOLDER --ann`; or give --exact"
        with reading.boundary(path, "is no approximate index", fix):
            flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            self.faiss_index = faiss.read_index(str(path), flags)
            if (self.faiss_index.d, self.faiss_index.ntotal) != (index.manifest.dim, entry.rows):
                raise ValueError("it is of other vectors")
        self.index, self.rows = index, entry.rows

    def search(self, queries: np.ndarray, count: int, probes: int, jobs: int = -1) -> Ranking:
        """The best motions of each query, mostly those of `search_exactly`; scores are exact.

        queries: (Q, d) float32; probes: lists that a query looks into. Where these hold fewer than
        `count` motions the last scores are -inf.
        """
        self.faiss_index.nprobe = min(probes, self.faiss_index.nlist)
        candidates = max(CANDIDATES, count)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        _, rows_of = self.faiss_index.search(queries, min(candidates, self.rows))
        parts = [self._rerank(rows_of, queries, min(count, self.rows))]
        if self.rows < self.index.rows:
            parts.append(search_exactly(self.index, queries, count, jobs, self.rows))
        return best_of(parts, count)

    def _rerank(self, rows_of: np.ndarray, queries: np.ndarray, count: int) -> Ranking:
        """The best of some rows (Q, m), by their products. Row -1 stands for none."""
        rows = np.full((len(queries), count), self.index.rows, np.int64)
        scores = np.full((len(queries), count), -np.inf, np.float32)
        for number, query in enumerate(queries):
            candidates = np.sort(rows_of[number][rows_of[number] >= 0])
            products = score_rows(self.index, query, candidates)
            order = np.argsort(-products, kind="stable")[:count]
            rows[number, : len(order)] = candidates[order]
            scores[number, : len(order)] = products[order]
        return Ranking(rows, scores)


def recall(ranking: Ranking, exact: Ranking) -> float:
    """Fraction of the motions that exact search lists which another search lists too."""
    pairs = zip(ranking.rows, exact.rows, strict=True)
    return float(np.mean([np.isin(best, rows).mean() for rows, best in pairs]))
