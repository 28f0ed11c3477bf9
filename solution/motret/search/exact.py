"""Exact search: the products of queries with every vector of an index, by blocks that fit the
cache.

A block is turned into float32 and multiplied there: few processors multiply float16 or int8
numbers faster. The blocks are the same whatever the number of threads, and so are the results.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

import joblib
import numpy as np
import torch
from torch import Tensor

from motret.search.index_files import Index, Shard
from motret.utils.parallel import single_thread, worker_pool

BLOCK_NUMBERS = 2**18
"""Numbers of a block: 1 MB in float32, which a core's second cache holds."""


class Ranking(NamedTuple):
    """The best motions of an index for each of Q queries, best first; of equal ones the first.

    rows: (Q, k) in the index; scores: (Q, k) float32 products.
    """

    rows: np.ndarray
    scores: np.ndarray


def search_exactly(
    index: Index, queries: np.ndarray, count: int, jobs: int = -1, first_row: int = 0
) -> Ranking:
    """The `count` motions with the largest products, or all where there are fewer.

    queries: (Q, d) float32; jobs: threads, -1 for one per core; first_row: those before it are not
    searched.
    """
    rows = max(64, BLOCK_NUMBERS // index.manifest.dim)
    blocks = list(_blocks(index, rows, first_row))
    count = min(count, index.rows - first_row)
    workers = max(1, min(joblib.cpu_count() if jobs < 0 else jobs, len(blocks)))
    tensors = torch.from_numpy(np.ascontiguousarray(queries.T, dtype=np.float32))
    with single_thread():  # each thread takes blocks of its own and waits for no other
        tasks = (
            joblib.delayed(_search_blocks)(blocks[worker::workers], tensors, rows, count)
            for worker in range(workers)
        )
        parts = list(worker_pool(workers, workers, "threads")(tasks))
    return best_of(parts, count)


def best_of(parts: list[Ranking], count: int) -> Ranking:
    """The best of several rankings of the same queries, each of other motions."""
    rows = np.concatenate([part.rows for part in parts], axis=1)
    scores = np.concatenate([part.scores for part in parts], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :count]
    return Ranking(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))


def score_rows(index: Index, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m,) products of one query (d,) with some rows (m,)."""
    return index.vectors(rows) @ query.astype(np.float32)


class _Block(NamedTuple):
    """Some rows of a shard. start, stop: in the shard; row: of the first one, in the index."""

    shard: Shard
    start: int
    stop: int
    row: int


def _blocks(index: Index, rows: int, first_row: int) -> Iterator[_Block]:
    for shard, first in zip(index.shards, index.starts[:-1].tolist(), strict=True):
        begin = max(0, first_row - first)
        for start in range(begin, shard.entry.rows, rows):
            yield _Block(shard, start, min(start + rows, shard.entry.rows), first + start)


def _search_blocks(blocks: list[_Block], queries: Tensor, rows: int, count: int) -> Ranking:
    """The best of some blocks. queries: (d, Q); rows: of a block at most."""
    dim, n_queries = queries.shape
    numbers, products = torch.empty(rows, dim), torch.empty(rows, n_queries)
    best_rows = [np.empty(0, np.int64)] * n_queries
    best_scores = [np.empty(0, np.float32)] * n_queries
    worst = torch.full((n_queries,), -torch.inf)
    for block, following in zip_longest(blocks, blocks[1:]):
        size = block.stop - block.start
        vectors = torch.from_numpy(block.shard.vectors[block.start : block.stop])
        scores = torch.matmul(numbers[:size].copy_(vectors), queries, out=products[:size])
        if block.shard.scales is not None:
            scales = block.shard.scales[block.start : block.stop]
            scores *= torch.from_numpy(scales)[:, None]
        if following is None or following.shard is not block.shard:
            block.shard.release()
        above = scores > worst
        for query in above.any(dim=0).nonzero()[:, 0].tolist():
            within = above[:, query].nonzero()[:, 0]
            block_scores = scores[within, query].numpy()
            merged_rows = np.concatenate([best_rows[query], within.numpy() + block.row])
            merged = np.concatenate([best_scores[query], block_scores])
            order = np.lexsort((merged_rows, -merged))[:count]
            best_rows[query], best_scores[query] = merged_rows[order], merged[order]
            if len(order) == count:
                worst[query] = float(merged[order[-1]])
    n_best = min(len(each) for each in best_rows)
    return Ranking(
        np.stack([each[:n_best] for each in best_rows]),
        np.stack([each[:n_best] for each in best_scores]),
    )
