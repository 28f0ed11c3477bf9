"""Scores of rankings: the competition's weighted recall, drawn from files or expected in closed form, and plain recalls.

Pure functions of arrays. In a similarity matrix `sim_qn` rows are queries and columns gallery motions; larger is better.
"""

from dataclasses import dataclass

import numpy as np

from motret.formats.challenge import POOL_SIZE, TOP_K

CHUNK_SIZE = 512
"""Queries that are compared with a gallery at a time, or motions with the captions, where similarities are not held whole."""


def rank_value(rank: np.ndarray, top: int = TOP_K) -> np.ndarray:
    """Competition score of a query whose right motion stands at 0-based `rank`: (H_top - H_rank) / H_top, 0 from `top` on.

    sum_k (1/k) Recall@k / sum_k (1/k), k = 1..top, of one query: Recall@k is 1 for k > rank, so the weights 1/(rank+1)..1/top remain.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, top + 1))])
    return (harmonic[top] - harmonic[np.minimum(rank, top)]) / harmonic[top]


def chance_score(pool: int = POOL_SIZE, top: int = TOP_K) -> float:
    """Competition score expected of a random ranking of `pool` candidates: the mean value of its ranks."""
    return float(rank_value(np.arange(pool), top).mean())


def tied_score(tied: np.ndarray, top: int = TOP_K) -> np.ndarray:
    """Competition score expected of queries whose right motion shares the best similarity with `tied` (Q,) others: (Q,).

    Ties are ranked in random order, so this is the mean of `rank_value` over the ranks 0..tied.
    """
    ranks = np.arange(int(np.max(tied, initial=0)) + 1)
    return (rank_value(ranks, top).cumsum() / (ranks + 1))[tied]


def count_better(sim_qn: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each query the numbers of gallery motions scored above, and equal to, its right one: two (Q,) integer arrays.

    sim_qn: (Q, N); right: (Q,) column of the right motion. NaN counts as above: a model that says NaN must not win.
    """
    own = np.take_along_axis(sim_qn, right[:, None], axis=1)
    below = np.count_nonzero(sim_qn < own, axis=1)
    tied = np.count_nonzero(sim_qn == own, axis=1)
    gallery = sim_qn.shape[1]
    broken = np.isnan(own[:, 0])
    better = np.where(broken, gallery - 1, gallery - below - tied)
    return better, np.where(broken, 0, tied - 1)


def count_better_chunked(query: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `count_better` says of `query @ gallery.T`, a block of it held at a time. query: (Q, d); gallery: (N, d); right: (Q,)."""
    blocks = (slice(start, start + CHUNK_SIZE) for start in range(0, len(query), CHUNK_SIZE))
    counts = [count_better(query[block] @ gallery.T, right[block]) for block in blocks]
    better, tied = (np.concatenate(found) for found in zip(*counts, strict=True))
    return better, tied


def motion_to_text_ranks(text: np.ndarray, motion: np.ndarray, motion_idx: np.ndarray) -> np.ndarray:
    """For each motion the number of other motions' captions above the best-placed of its own, those equal to it counted half: (N,).

    text: (C, d); motion: (N, d), whose products are the similarities; owner: (C,) motion of each caption. A block of motions is
    compared with all captions at a time. NaN counts as above.
    """
    order = np.argsort(motion_idx, kind="stable")
    ends = np.searchsorted(motion_idx[order], np.arange(len(motion) + 1))
    found = []
    for start in range(0, len(motion), CHUNK_SIZE):
        sim_nc = motion[start : start + CHUNK_SIZE] @ text.T
        size = len(sim_nc)
        mine = order[ends[start] : ends[start + size]]
        place = motion_idx[mine] - start
        own = sim_nc[place, mine]
        best = np.full(size, -np.inf, dtype=sim_nc.dtype)
        np.fmax.at(best, place, own)
        below = np.count_nonzero(sim_nc < best[:, None], axis=1) - np.bincount(place, own < best[place], size)
        tied = np.count_nonzero(sim_nc == best[:, None], axis=1) - np.bincount(place, own == best[place], size)
        foreign = len(text) - np.bincount(place, minlength=size)
        found.append(foreign - below - tied / 2)
    return np.concatenate(found)


def pool_beater_probabilities(gallery: int, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """Probability that x of the b wrong motions that beat the right one are among a random pool: (top, N) for x = 0..top-1, b = 0..N-1.

    Hypergeometric(x; N - 1, b, pool - 1): the pool draws pool - 1 of the gallery's N - 1 wrong motions. `search` is N, >= pool.
    """
    if gallery < pool:
        raise ValueError(f"a gallery of {gallery} holds no pool of {pool}")
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, gallery + 1)))])

    def log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray:
        return log_factorial[n] - log_factorial[k] - log_factorial[np.asarray(n) - k]

    problem, drawn = gallery - 1, pool - 1
    b = np.arange(gallery)
    probability = np.zeros((top, gallery))
    for x in range(min(top, drawn + 1)):
        possible = (b >= x) & (problem - b >= drawn - x)
        at = b[possible]
        probability[x, possible] = np.exp(log_choose(at, x) + log_choose(problem - at, drawn - x) - log_choose(problem, drawn))
    return probability


def expected_pool_score(gallery: int, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """What a query expects when b of N - 1 wrong motions beat its right one and a pool is drawn at random: (N,) for b = 0..N-1.

    f(b) = sum_{x<top} P(x beaters in the pool) * rank_value(x).
    """
    return (pool_beater_probabilities(gallery, pool, top) * rank_value(np.arange(top), top)[:, None]).sum(axis=0)


def expected_recall(better: np.ndarray, tied: np.ndarray, gallery: int, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """Recall@k, k = 1..top, that queries expect when each one's pool is drawn at random from the gallery: (Q, top).

    better, tied: (Q,) as in `expected_score`, which is this with the weights (1/k) / H_top. The mean over rows is the recall curve.
    """
    found = np.cumsum(pool_beater_probabilities(gallery, pool, top), axis=0)  # (top, N): at most k - 1 beaters
    total = np.concatenate([np.zeros((top, 1)), np.cumsum(found, axis=1)], axis=1)
    return ((total[:, better + tied + 1] - total[:, better]) / (tied + 1)).T


def expected_score(better: np.ndarray, tied: np.ndarray, gallery: int, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """Competition score each query expects when its pool is drawn at random from the gallery.

    better, tied: (Q,) numbers of gallery motions scored above / equal to the right one; gallery: motions in all, >= pool.
    Returns (Q,) in [0, 1]. The beaters inside a pool are hypergeometric, so nothing is sampled; ties are averaged over:
    score = mean over j = 0..tied of f(better + j).
    """
    total = np.concatenate([[0.0], np.cumsum(expected_pool_score(gallery, pool, top))])
    return (total[better + tied + 1] - total[better]) / (tied + 1)


@dataclass(frozen=True)
class Score:
    """A mean over motions with its standard error: mean, error, motions and groups behind it."""

    mean: float
    error: float
    motions: int
    groups: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} +- {self.error:.4f}"


def cluster_robust_mean(values: np.ndarray, groups: np.ndarray) -> Score:
    """Mean of (M,) per-motion values and its standard error when motions of one group stand or fall together.

    groups: (M,) any labels. Cluster-robust error (Liang and Zeger 1986) with the factor G / (G - 1); never below the error of
    independent motions, since few groups can agree by chance.
    """
    count = len(values)
    mean = float(values.mean())
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    spread = float(values.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
    if len(sums) < 2:
        return Score(mean, spread, count, len(sums))
    error = float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum())) / count
    return Score(mean, max(error, spread), count, len(sums))


def caption_scores(sim_qn: np.ndarray, motion_idx: np.ndarray, pool: int = POOL_SIZE, top: int = TOP_K) -> np.ndarray:
    """Expected score of each motion of a gallery, the mean over its captions: (N,).

    sim_qn: (Q, N) captions x motions; owner: (Q,) column each caption belongs to; every motion has a caption. A gallery smaller
    than the pool is its own pool.
    """
    return motion_scores(*count_better(sim_qn, motion_idx), motion_idx, sim_qn.shape[1], pool, top)


def motion_scores(
    better: np.ndarray, tied: np.ndarray, motion_idx: np.ndarray, gallery: int, pool: int = POOL_SIZE, top: int = TOP_K
) -> np.ndarray:
    """`caption_scores` of captions that were counted: better, tied as `count_better` gives them, gallery motions in all."""
    values = expected_score(better, tied, gallery, min(pool, gallery), top)
    return np.bincount(motion_idx, weights=values, minlength=gallery) / np.bincount(motion_idx, minlength=gallery)


def recalls(ranks: np.ndarray, at: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """R@k (share of queries found at rank <= k), mean and median 1-based rank, from (Q,) 0-based ranks."""
    found = {f"R@{k}": float((ranks < k).mean()) for k in at}
    return found | {"MeanR": float(ranks.mean() + 1), "MedR": float(np.median(ranks) + 1)}


def retrieval_table(better: np.ndarray, tied: np.ndarray, foreign: np.ndarray) -> dict[str, dict[str, float]]:
    """Plain recalls over the whole gallery in both directions; ties count half.

    "text_to_motion": each caption ranks the motions; better, tied: (C,) as `count_better` gives them. "motion_to_text": each motion
    ranks the captions and the best-placed of its own counts, as with several references per motion; foreign: (N,) captions of others
    above it, as `motion_to_text_ranks` gives them.
    """
    return {"text_to_motion": recalls(better + tied / 2), "motion_to_text": recalls(foreign)}


def submission_scores(ranked: dict[str, tuple[int, ...]], truth: dict[str, int], top: int = TOP_K) -> np.ndarray:
    """Score of each query of a submission, in the order of `truth`: (Q,).

    ranked: query -> candidates, best first; truth: query -> the right candidate. A query that is not ranked scores 0.
    """
    rows = (ranked.get(query, ()) for query in truth)
    ranks = [row.index(right) if right in row else top for row, right in zip(rows, truth.values(), strict=True)]
    return rank_value(np.array(ranks), top)


def recall_at(ranked: dict[str, tuple[int, ...]], truth: dict[str, int], top: int = TOP_K) -> np.ndarray:
    """Recall@k for k = 1..top of a submission: (top,)."""
    hits = np.array([[right in ranked.get(query, ())[:k] for k in range(1, top + 1)] for query, right in truth.items()])
    return hits.mean(axis=0)
