"""The competition's weighted recall, of given pools or expected; plain recalls.

Pure functions of arrays. In a similarity matrix `sim_qn` rows are queries and columns gallery
motions; larger is better.
"""

from dataclasses import dataclass

import numpy as np

from motret.formats.challenge import POOL_SIZE, TOP_K

CHUNK_SIZE = 512
"""Queries that are compared with a gallery at a time, or motions with all captions, where
similarities are not held whole.
"""


def rank_value(rank: np.ndarray, top: int = TOP_K) -> np.ndarray:
    """Score of a query with its right motion at 0-based `rank`: (H_top - H_rank) / H_top.

    The score of one query is sum_k (1/k) Recall@k / sum_k (1/k), k = 1..top. Recall@k is 1 for k >
    rank, so the weights 1/(rank+1)..1/top remain, none from rank `top` on.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, top + 1))])
    return np.asarray((harmonic[top] - harmonic[np.minimum(rank, top)]) / harmonic[top])


def chance_score(pool: int = POOL_SIZE, top: int = TOP_K) -> float:
    """Score expected of a random ranking of `pool` candidates: the mean of its ranks' values."""
    return float(rank_value(np.arange(pool), top).mean())


def tied_score(tied: np.ndarray, top: int = TOP_K) -> np.ndarray:
    """Competition score expected of queries whose right motion shares the top with others: (Q,).

    tied: (Q,) how many others have the same, best similarity. Ties are ranked in random order, so
    this is the mean of `rank_value` over the ranks 0..tied.
    """
    ranks = np.arange(int(np.max(tied, initial=0)) + 1)
    return np.asarray((rank_value(ranks, top).cumsum() / (ranks + 1))[tied])


def count_better(sim_qn: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many gallery motions score above, and equal to, each query's right one.

    Two (Q,) integer arrays. sim_qn: (Q, N); right: (Q,) column of the right motion. NaN counts as
    above: a model with NaN similarities must not win.
    """
    right_sim = np.take_along_axis(sim_qn, right[:, None], axis=1)
    below = np.count_nonzero(sim_qn < right_sim, axis=1)
    tied = np.count_nonzero(sim_qn == right_sim, axis=1)
    gallery_size = sim_qn.shape[1]
    is_nan = np.isnan(right_sim[:, 0])
    better = np.where(is_nan, gallery_size - 1, gallery_size - below - tied)
    return better, np.where(is_nan, 0, tied - 1)


def count_better_chunked(
    query: np.ndarray, gallery: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`count_better` of `query @ gallery.T`, formed for a chunk of queries at a time.

    query: (Q, d); gallery: (N, d); right: (Q,).
    """
    chunks = (slice(start, start + CHUNK_SIZE) for start in range(0, len(query), CHUNK_SIZE))
    counts = [count_better(query[chunk] @ gallery.T, right[chunk]) for chunk in chunks]
    better, tied = (np.concatenate(of_chunks) for of_chunks in zip(*counts, strict=True))
    return better, tied


def motion_to_text_ranks(
    text: np.ndarray, motion: np.ndarray, motion_idx: np.ndarray
) -> np.ndarray:
    """0-based rank of each motion's best caption among those of other motions: (N,).

    Ties count half. text: (C, d); motion: (N, d), whose products are the similarities; motion_idx:
    (C,) motion of each caption. A chunk of motions is compared with all captions at a time. NaN
    counts as above.
    """
    order = np.argsort(motion_idx, kind="stable")
    ends = np.searchsorted(motion_idx[order], np.arange(len(motion) + 1))
    ranks = []
    for start in range(0, len(motion), CHUNK_SIZE):
        sim_nc = motion[start : start + CHUNK_SIZE] @ text.T
        size = len(sim_nc)
        right_captions = order[ends[start] : ends[start + size]]
        index = motion_idx[right_captions] - start
        right_sim = sim_nc[index, right_captions]
        best = np.full(size, -np.inf, dtype=sim_nc.dtype)
        np.fmax.at(best, index, right_sim)
        # of all captions, less the motion's own
        below = np.count_nonzero(sim_nc < best[:, None], axis=1) - np.bincount(
            index, right_sim < best[index], size
        )
        tied = np.count_nonzero(sim_nc == best[:, None], axis=1) - np.bincount(
            index, right_sim == best[index], size
        )
        n_foreign = len(text) - np.bincount(index, minlength=size)
        ranks.append(n_foreign - below - tied / 2)
    return np.concatenate(ranks)


def pool_beater_probabilities(gallery: int, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """Probability that x of the b motions that beat the right one are in a random pool: (top, N).

    gallery: N motions in all, >= pool; x = 0..top-1, b = 0..N-1. Hypergeometric(x; N - 1, b, pool -
    1): the pool draws pool - 1 of the gallery's N - 1 wrong motions.
    """
    if gallery < pool:
        raise ValueError(f"a gallery of {gallery} holds no pool of {pool}")
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, gallery + 1)))])

    def log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
        return np.asarray(log_factorial[n] - log_factorial[k] - log_factorial[np.asarray(n) - k])

    n_wrong, n_drawn = gallery - 1, pool - 1
    b = np.arange(gallery)
    probability = np.zeros((top, gallery))
    for x in range(min(top, n_drawn + 1)):
        is_possible = (b >= x) & (n_wrong - b >= n_drawn - x)
        b_x = b[is_possible]
        log_ways = log_choose(b_x, x) + log_choose(n_wrong - b_x, n_drawn - x)
        probability[x, is_possible] = np.exp(log_ways - log_choose(n_wrong, n_drawn))
    return probability


def expected_pool_score(gallery: int, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """Expected score of a query when b wrong motions beat its right one: (N,).

    b = 0..N-1, N = gallery. The pool is drawn at random: f(b) = sum_{x<top} P(x beaters in the
    pool) * rank_value(x).
    """
    values = rank_value(np.arange(top), top)[:, None]
    return np.asarray((pool_beater_probabilities(gallery, pool, top) * values).sum(axis=0))


def expected_recall(
    better: np.ndarray, tied: np.ndarray, gallery: int, pool: int = POOL_SIZE, top: int = TOP_K
) -> np.ndarray:
    """Recall@k, k = 1..top, expected of queries with random pools: (Q, top).

    better, tied: (Q,) as in `expected_score`, which is this with the weights (1/k) / H_top. The
    mean over the queries is the recall curve.
    """
    hits = np.cumsum(
        pool_beater_probabilities(gallery, pool, top), axis=0
    )  # (top, N): at most k - 1 beaters
    total = np.concatenate([np.zeros((top, 1)), np.cumsum(hits, axis=1)], axis=1)
    return np.asarray(((total[:, better + tied + 1] - total[:, better]) / (tied + 1)).T)


def expected_score(
    better: np.ndarray, tied: np.ndarray, gallery: int, pool: int = POOL_SIZE, top: int = TOP_K
) -> np.ndarray:
    """Competition score expected of queries with random pools: (Q,) in [0, 1].

    Pools are drawn from the gallery. better, tied: (Q,) how many gallery motions score above the
    right one, and the same; gallery: motions in all, >= pool. The beaters inside a pool are
    hypergeometric, so nothing is sampled. Ties are averaged over: score = mean over j = 0..tied of
    f(better + j), f as in `expected_pool_score`.
    """
    total = np.concatenate([[0.0], np.cumsum(expected_pool_score(gallery, pool, top))])
    return np.asarray((total[better + tied + 1] - total[better]) / (tied + 1))


@dataclass(frozen=True)
class Score:
    """A mean over motions with its standard error; motions, groups: how many it is taken over."""

    mean: float
    error: float
    motions: int
    groups: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.error:.4f}"


def cluster_robust_mean(values: np.ndarray, groups: np.ndarray) -> Score:
    """Mean of (M,) per-motion values and its cluster-robust standard error.

    groups: (M,) any labels.
    """
    count, mean = len(values), float(values.mean())
    error = cluster_robust_error((values - mean) / count, groups)
    return Score(mean, error, count, len(np.unique(groups)))


def cluster_robust_error(influence: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of an estimate to which (M,) motions add `influence` each, around 0.

    Of a mean they are (value - mean) / M; weighted means and differences of means have such
    influences too. Motions of one group stand or fall together; groups: (M,) any labels.
    Cluster-robust standard error (Liang and Zeger 1986) with the factor G / (G - 1); never below
    that of independent motions, since few groups can agree by chance.
    """
    count = len(influence)
    if count < 2:
        return float("nan")
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=influence)
    independent_error = float(np.sqrt(count / (count - 1) * (influence**2).sum()))
    if len(sums) < 2:
        return independent_error
    error = float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()))
    return max(error, independent_error)


def caption_scores(
    sim_qn: np.ndarray, motion_idx: np.ndarray, pool: int = POOL_SIZE, top: int = TOP_K
) -> np.ndarray:
    """Expected score of each motion of a gallery, the mean over its captions: (N,).

    sim_qn: (Q, N) captions x motions; motion_idx: (Q,) motion of each caption; every motion has a
    caption. A gallery smaller than the pool is its own pool.
    """
    return motion_scores(*count_better(sim_qn, motion_idx), motion_idx, sim_qn.shape[1], pool, top)


def motion_scores(
    better: np.ndarray,
    tied: np.ndarray,
    motion_idx: np.ndarray,
    gallery: int,
    pool: int = POOL_SIZE,
    top: int = TOP_K,
) -> np.ndarray:
    """`caption_scores` from better, tied (Q,); gallery: motions in all."""
    values = expected_score(better, tied, gallery, min(pool, gallery), top)
    sums = np.bincount(motion_idx, weights=values, minlength=gallery)
    return np.asarray(sums / np.bincount(motion_idx, minlength=gallery))


def recalls(ranks: np.ndarray, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """R@k, mean and median 1-based rank, from 0-based ranks (Q,).

    R@k is the fraction of queries at a 1-based rank <= k.
    """
    table = {f"R@{k}": float((ranks < k).mean()) for k in ks}
    return table | {"MeanR": float(ranks.mean() + 1), "MedR": float(np.median(ranks) + 1)}


def retrieval_table(
    better: np.ndarray, tied: np.ndarray, motion_ranks: np.ndarray
) -> dict[str, dict[str, float]]:
    """Plain recalls over the whole gallery in both directions; ties count half.

    "text_to_motion": each caption ranks the motions; better, tied: (C,) as `count_better` gives
    them. "motion_to_text": each motion ranks the captions and its best one counts, as with several
    references per motion; motion_ranks: (N,) as `motion_to_text_ranks` gives them.
    """
    return {"text_to_motion": recalls(better + tied / 2), "motion_to_text": recalls(motion_ranks)}


def submission_scores(
    ranked: dict[str, tuple[int, ...]], truth: dict[str, int], top: int = TOP_K
) -> np.ndarray:
    """Score of each query of a submission, in the order of `truth`: (Q,).

    ranked: query -> candidates, best first; truth: query -> the right candidate. A query that is
    not ranked scores 0.
    """
    answers = (ranked.get(query, ()) for query in truth)
    ranks = [
        candidates.index(right) if right in candidates else top
        for candidates, right in zip(answers, truth.values(), strict=True)
    ]
    return rank_value(np.array(ranks), top)


def recall_at(
    ranked: dict[str, tuple[int, ...]], truth: dict[str, int], top: int = TOP_K
) -> np.ndarray:
    """Recall@k for k = 1..top of a submission: (top,). ranked, truth: as in `submission_scores`."""
    hits = np.array(
        [
            [right in ranked.get(query, ())[:k] for k in range(1, top + 1)]
            for query, right in truth.items()
        ]
    )
    return np.asarray(hits.mean(axis=0))
