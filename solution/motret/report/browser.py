"""The content of the error browser: out-of-fold rankings, a ranked test folder, a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.ensemble import external
from motret.evaluation import metrics
from motret.evaluation.local_score import fold_similarity, out_of_fold_score
from motret.evaluation.metrics import Score
from motret.formats import submission_log
from motret.formats.challenge import POOL_SIZE, TOP_K
from motret.formats.queries import Query
from motret.formats.text_files import query_key
from motret.report.page import CandidateView, MemberRow, Overview, PageContent, QueryView
from motret.runs.run import Run
from motret.runs.selection import folds_of_runs
from motret.search.search import SearchResult
from motret.utils import reading

RECORD_FIX = "move it away, or run ensemble.py again"
MAX_QUERIES = 200
"""Queries that a page lists."""
N_TOP = 10
"""Candidates that are shown of a long ranking, besides the matching one."""
MAX_CANDIDATES = 1000
"""Candidates of all queries up to which a page shows every one."""


@dataclass(frozen=True)
class FoldSimilarities:
    """Similarities of the captions and motions that a fold held out.

    sim_cm: (C, M) captions x motions; motion_idx: (C,) motion of each caption; data_idx: (M,) index
    of each motion in the training data.
    """

    sim_cm: np.ndarray
    motion_idx: np.ndarray
    data_idx: np.ndarray


# ---- out of fold


def fold_similarities_of_runs(
    members: Sequence[Run], weights: Sequence[float] | None = None
) -> list[FoldSimilarities]:
    """The members' mean similarity in every fold that all of them have finished.

    Each member is z-scored. weights: equal by default.
    """
    similarities = []
    for fold in folds_of_runs(members, members[0].finished_folds()):
        sim_cm, out = fold_similarity(members, fold, weights)
        similarities.append(FoldSimilarities(sim_cm, out.motion_idx, out.data_idx))
    return similarities


def page_of_runs(
    members: Sequence[Run],
    data: TrainingData,
    folds: Folds,
    weights: Sequence[float] | None = None,
) -> PageContent:
    """Out-of-fold page of a run, or of the weighted mean of several (`page_of_folds`)."""
    name = members[0].name if len(members) == 1 else f"mean of {len(members)} runs"
    similarities = fold_similarities_of_runs(members, weights)
    rows: list[MemberRow] = []
    if len(members) > 1:
        normalised = np.ones(len(members)) if weights is None else np.array(weights)
        normalised = normalised / normalised.sum()
        rows = [
            MemberRow(run.name, float(weight), _score_text(out_of_fold_score([run], folds).score))
            for run, weight in zip(members, normalised, strict=True)
        ]
    return page_of_folds(f"{name}, out of fold", similarities, rows, data, folds)


def page_of_folds(
    title: str,
    similarities: Sequence[FoldSimilarities],
    members: Sequence[MemberRow],
    data: TrainingData,
    folds: Folds,
) -> PageContent:
    """Out-of-fold page: each held-out caption is a query, and its fold's motions are the gallery.

    It shows the `N_TOP` best candidates and the matching motion, of at most `MAX_QUERIES` queries;
    score and recall are those of all queries.
    """
    scores, groups, recalls, ranks = [], [], [], []
    locations: list[tuple[FoldSimilarities, int]] = []
    for fold in similarities:
        gallery = fold.sim_cm.shape[1]
        better, tied = metrics.count_better(fold.sim_cm, fold.motion_idx)
        scores.append(metrics.caption_scores(fold.sim_cm, fold.motion_idx))
        groups.append(folds.group[fold.data_idx])
        recalls.append(metrics.expected_recall(better, tied, gallery, min(POOL_SIZE, gallery)))
        ranks.append(better + tied / 2 + 1)
        locations += [(fold, caption) for caption in range(len(fold.motion_idx))]
    score = metrics.cluster_robust_mean(np.concatenate(scores), np.concatenate(groups))
    rank = np.concatenate(ranks)
    query_idx, note = choose_queries(rank)
    galleries = sorted({fold.sim_cm.shape[1] for fold in similarities})
    pools = sorted({min(POOL_SIZE, gallery) for gallery in galleries})
    pool_text = f"pools of {_range_text(pools)}"
    overview = Overview(
        facts=(
            (f"Local score, expected in {pool_text}", _score_text(score)),
            ("Queries", f"{len(rank)} captions of {score.motions} held-out motions"),
            ("Gallery of a query", f"{_range_text(galleries)} motions of its fold"),
            ("Median rank", f"{np.median(rank):g}"),
        ),
        recall=tuple(np.concatenate(recalls).mean(axis=0)),
        chance=_chance_recall(pools[-1]),
        members=tuple(members),
        note=(
            f"Recall is expected in {pool_text}, like the score. "
            f"The ranks of the queries are those in the whole fold. {note}"
        ).strip(),
    )
    listed = (locations[index] for index in query_idx)
    queries = tuple(_caption_query(fold, caption, data) for fold, caption in listed)
    return PageContent(title, overview, queries, data.store.config)


def _caption_query(fold: FoldSimilarities, caption: int, data: TrainingData) -> QueryView:
    """A caption of a fold as a query."""
    similarity, match = fold.sim_cm[caption], int(fold.motion_idx[caption])
    first_caption = int(np.argmax(fold.motion_idx == match))  # a motion's captions are consecutive
    number = caption - first_caption
    captions, ids, paths = data.training.captions, data.training.ids, data.training.paths
    candidates = []
    for rank, column in _listed_candidates(similarity, match, N_TOP):
        index, score = int(fold.data_idx[column]), float(similarity[column])
        candidates.append(CandidateView(ids[index], paths[index], rank, score, captions[index]))
    truth = int(fold.data_idx[match])
    several = len(captions[truth]) > 1
    name = f"{ids[truth]}, caption {number + 1}" if several else ids[truth]
    text = captions[truth][number]
    return QueryView(name, (text,), tuple(candidates), len(similarity), ids[truth])


# ---- test


def page_of_test(
    title: str,
    queries: Sequence[Query],
    similarities: Sequence[np.ndarray],
    members: Sequence[MemberRow],
    config: FeatureConfig,
    truth: Mapping[str, int] | None = None,
) -> PageContent:
    """Page of a ranked test folder.

    similarities: (n_candidates,) of each query; config: for the frame rate and the up axis; truth:
    the matching candidate by query key (`submission.read_ground_truth`). Long rankings and many
    queries are shortened as in `page_of_folds`.
    """
    truth = truth or {}
    captions = {
        query.paths[query.candidates.index(truth[query_key(query.id)])]: query.captions
        for query in queries
        if truth.get(query_key(query.id)) in query.candidates
    }
    sizes = [len(query.candidates) for query in queries]
    complete = sum(sizes) <= MAX_CANDIDATES
    views = [
        _test_query(query, similarity, truth, captions, None if complete else N_TOP)
        for query, similarity in zip(queries, similarities, strict=True)
    ]
    size_text = _range_text(sorted(set(sizes)))
    queries_fact = ("Queries", f"{len(queries)}, each with {size_text} candidates")
    rank = np.array([view.rank for view in views if view.rank is not None])
    query_idx, note = np.arange(len(views)), ""
    if len(rank):
        score = metrics.cluster_robust_mean(metrics.rank_value(rank - 1), np.arange(len(rank)))
        facts: tuple[tuple[str, str], ...] = (
            ("True score on these queries", _score_text(score)),
            queries_fact,
            ("Median rank", f"{np.median(rank):g}"),
        )
        recall = tuple((rank <= k).mean() for k in range(1, TOP_K + 1))
        chance = tuple(np.mean([_chance_recall(size) for size in sizes], axis=0))
        if not complete:
            query_idx, note = choose_queries(np.array([view.rank or 0 for view in views]))
    else:
        facts = (queries_fact, ("Ground truth", "not available"))
        recall, chance = (), ()
        if not complete:
            query_idx, note = _evenly_spaced(len(views))
    overview = Overview(facts, recall, chance, tuple(members), note)
    return PageContent(title, overview, tuple(views[index] for index in query_idx), config)


def _test_query(
    query: Query,
    similarity: np.ndarray,
    truth: Mapping[str, int],
    captions: Mapping[Path, tuple[str, ...]],
    n_top: int | None,
) -> QueryView:
    """A test query as the page shows it. captions: of the motions whose captions are known."""
    number = truth.get(query_key(query.id))
    match = query.candidates.index(number) if number in query.candidates else None
    candidates = tuple(
        CandidateView(
            f"motion_{query.candidates[index]}",
            query.paths[index],
            rank,
            float(similarity[index]),
            captions.get(query.paths[index], ()),
        )
        for rank, index in _listed_candidates(similarity, match, n_top)
    )
    motion = None if match is None else f"motion_{number}"
    return QueryView(query.id, query.captions, candidates, len(query.candidates), motion)


def page_of_submission(
    path: Path,
    queries: Sequence[Query],
    config: FeatureConfig,
    truth: Mapping[str, int] | None,
) -> PageContent:
    """Page of a submission CSV, from the files next to it: `page_of_test` with its local score.

    The .npz file holds the similarities, the .json file scores and members.
    """
    record = submission_log.read_record(path) or {}
    with reading.boundary(path.with_suffix(".json"), "is no record of a submission", RECORD_FIX):
        members = [_member_row(member) for member in record.get("members", ())]
        local = [_local_score_fact(record["local_score"])] if "local_score" in record else []
    npz = path.with_suffix(".npz")
    similarities = external.read_saved_similarities(npz, queries)
    page = page_of_test(path.stem, queries, similarities, members, config, truth)
    facts, large = page.overview.facts, 1 if page.overview.recall else 0
    facts, large = (*local, *facts), large + len(local)
    saved = zip(external.read_saved_members(npz, queries), members, strict=False)
    weighted = [similarities for similarities, member in saved if member.weight]
    disagreements = {
        query.id: disagreement(similarities)
        for query, *similarities in zip(queries, *weighted, strict=True)
    }
    views = tuple(replace(view, disagreement=disagreements[view.id]) for view in page.queries)
    overview = replace(page.overview, facts=facts, large=large)
    return replace(page, overview=overview, queries=views)


def _member_row(member: Mapping[str, Any]) -> MemberRow:
    score = member.get("local_score")
    text = _score_text(Score(**score)) if score else ""
    return MemberRow(member["run"], member.get("weight"), text)


def _local_score_fact(record: Mapping[str, float] | None) -> tuple[str, str]:
    """The local score in a submission's record as a fact of the overview."""
    if not record:
        return "Local score (a member has no out-of-fold predictions)", "not known"
    motions, groups = int(record["motions"]), int(record["groups"])
    score = Score(record["mean"], record["error"], motions, groups)
    return "Local score, expected on held-out motions", _score_text(score)


def disagreement(similarities: Sequence[np.ndarray]) -> float | None:
    """How differently the members of an ensemble rank the candidates of a query.

    It is 1 - Spearman's rank correlation, the mean over all pairs of members. 0: all have the same
    order; 1: unrelated orders, also where a member gives all candidates the same similarity.

    similarities: (n,) of each member to the candidates. None for fewer than two members, 0 for a
    single candidate.
    """
    if len(similarities) < 2:
        return None
    if len(similarities[0]) < 2:
        return 0.0
    # twice the centred rank, ties counted half: how many are below minus how many are above
    ranks = np.stack(
        [np.sign(values[:, None] - values).sum(axis=1) for values in similarities]
    ).astype(float)
    unit = ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)
    pairs = np.triu_indices(len(unit), k=1)
    return float(np.clip(1 - (unit @ unit.T)[pairs].mean(), 0, 2))


# ---- search


def page_of_search(text: str, result: SearchResult, n_top: int) -> PageContent:
    """Page of a search: one query and its `n_top` best motions."""
    order = np.argsort(-result.similarity, kind="stable")[:n_top]
    candidates = tuple(
        CandidateView(
            result.ids[index],
            result.paths[index],
            rank,
            float(result.similarity[index]),
            result.captions[index],
        )
        for rank, index in enumerate(order, start=1)
    )
    facts = (("Model", result.model), ("Gallery", result.gallery))
    overview = Overview(facts, note=result.note, large=0)
    query = QueryView("search", (text,), candidates, result.searched)
    return PageContent("Search", overview, (query,), result.config)


# ---- which queries and candidates are listed


def choose_queries(ranks: np.ndarray) -> tuple[np.ndarray, str]:
    """Chooses at most `MAX_QUERIES` queries by their ranks (Q,): the hardest and others.

    Returns their indices, and a note on the choice ("" where all are listed).
    """
    if len(ranks) <= MAX_QUERIES:
        return np.arange(len(ranks)), ""
    order = np.argsort(-ranks, kind="stable")
    hardest, rest = order[: MAX_QUERIES // 2], order[MAX_QUERIES // 2 :]
    n_spread = MAX_QUERIES - len(hardest)
    spread = rest[np.linspace(0, len(rest) - 1, n_spread).astype(int)]
    note = (
        f"{MAX_QUERIES} of the {len(ranks)} queries are listed: the {len(hardest)} hardest, and "
        f"{n_spread} of the others, evenly by rank."
    )
    return np.sort(np.concatenate([hardest, spread])), note


def _evenly_spaced(count: int) -> tuple[np.ndarray, str]:
    """The same without ranks: evenly over all queries."""
    if count <= MAX_QUERIES:
        return np.arange(count), ""
    query_idx = np.linspace(0, count - 1, MAX_QUERIES).astype(int)
    return query_idx, f"{MAX_QUERIES} of the {count} queries are listed, evenly spaced."


def _listed_candidates(
    similarity: np.ndarray, match: int | None, n_top: int | None
) -> list[tuple[int, int]]:
    """(rank from 1, index) of the candidates to show: the top ones (None: all) and the match."""
    order = np.argsort(-similarity, kind="stable")
    return [
        (rank, int(index))
        for rank, index in enumerate(order, start=1)
        if n_top is None or rank <= n_top or index == match
    ]


# ---- texts


def _chance_recall(pool: int) -> tuple[float, ...]:
    """Recall@k of a random order of `pool` candidates."""
    return tuple(min(1.0, k / pool) for k in range(1, TOP_K + 1))


def _score_text(score: Score) -> str:
    return f"{score.mean:.3f} ± {score.error:.3f}"


def _range_text(numbers: Sequence[int]) -> str:
    """`32`, or `28 to 32`, of sorted numbers."""
    low, high = numbers[0], numbers[-1]
    return f"{low}" if low == high else f"{low} to {high}"
