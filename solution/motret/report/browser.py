"""What the error browser shows: reports made of out-of-fold similarities, of a ranked test folder, of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.ensemble import external
from motret.evaluation import metrics
from motret.evaluation.local_score import fold_similarity, out_of_fold_score
from motret.evaluation.metrics import Score
from motret.formats import challenge
from motret.formats.challenge import POOL_SIZE
from motret.formats.queries import Query
from motret.formats.text_files import query_key
from motret.report.page import CandidateView, MemberRow, Overview, PageContent, QueryView
from motret.report.search import SearchResult
from motret.runs.run import Run
from motret.runs.selection import folds_of_runs
from motret.utils import files

MAX_QUERIES = 200
"""Queries that a page shows."""
TOP_SHOWN = 10
"""Candidates that are shown of a long ranking, besides the right one."""
NO_LOCAL_SCORE = "Local score, since a member has no out-of-fold part"
LARGE_GALLERY = 1000
"""Candidates in all up to which a page shows every one of every query."""


@dataclass(frozen=True)
class FoldSimilarities:
    """Captions and motions that a fold held out.

    similarity: (C, M); owner: (C,) motion of each caption; row: (M,) place of each motion in the training data.
    """

    similarity: np.ndarray
    motion_idx: np.ndarray
    row: np.ndarray


def fold_similarities_of_runs(members: Sequence[Run], weights: Sequence[float] | None = None) -> list[FoldSimilarities]:
    """The members' mean similarity, each on its own scale, in every fold that all of them have finished. weights: by default equal ones."""
    answers = []
    for fold in folds_of_runs(members, members[0].finished_folds()):
        similarity, out = fold_similarity(members, fold, weights)
        answers.append(FoldSimilarities(similarity, out.motion_idx, out.data_idx))
    return answers


def page_of_runs(members: Sequence[Run], data: TrainingData, folds: Folds, weights: Sequence[float] | None = None) -> PageContent:
    """Out-of-fold report of a run, or of the weighted mean of several, as `page_of_folds`."""
    title = f"{members[0].name if len(members) == 1 else f'mean of {len(members)} runs'}, out of fold"
    shares = np.full(len(members), 1 / len(members)) if weights is None else np.array(weights) / np.sum(weights)
    listed = [
        MemberRow(run.name, float(share), _score_text(out_of_fold_score([run], folds).score))
        for run, share in zip(members, shares, strict=True)
    ]
    return page_of_folds(title, fold_similarities_of_runs(members, weights), listed if len(listed) > 1 else [], data, folds)


def page_of_folds(
    title: str, answers: Sequence[FoldSimilarities], members: Sequence[MemberRow], data: TrainingData, folds: Folds
) -> PageContent:
    """Out-of-fold report: every caption of a held-out motion is a query, the motions of its fold are its gallery.

    Shown are the ten best candidates and the right motion, of at most `MOST` queries; score and recall are those of all queries.
    """
    values, groups, recall, ranks, places = [], [], [], [], []
    for number, own in enumerate(answers):
        gallery = own.similarity.shape[1]
        pool = min(POOL_SIZE, gallery)
        values.append(metrics.caption_scores(own.similarity, own.motion_idx))
        groups.append(folds.group[own.row])
        better, tied = metrics.count_better(own.similarity, own.motion_idx)
        recall.append(metrics.expected_recall(better, tied, gallery, pool))
        ranks.append(better + tied / 2 + 1)
        places += [(number, caption) for caption in range(len(own.motion_idx))]
    score = metrics.cluster_robust_mean(np.concatenate(values), np.concatenate(groups))
    standing = np.concatenate(ranks)
    chosen, note = choose_queries(standing)
    counts = sorted({own.similarity.shape[1] for own in answers})
    pools = sorted({min(POOL_SIZE, count) for count in counts})
    overview = Overview(
        facts=(
            (f"Local score, expected in pools of {_range_text(pools)}", _score_text(score)),
            ("Queries", f"{len(standing)} captions of {score.motions} held-out motions"),
            ("Gallery of a query", f"{_range_text(counts)} motions of its fold"),
            ("Median rank", f"{np.median(standing):g}"),
        ),
        recall=tuple(np.concatenate(recall).mean(axis=0)),
        chance=_chance_recall(pools[-1]),
        members=tuple(members),
        note=f"Recall is told for pools of {_range_text(pools)}, like the score; ranks below are those in the whole fold. {note}".strip(),
    )
    queries = tuple(_caption_query(answers[places[at][0]], places[at][1], data) for at in chosen)
    return PageContent(title, overview, queries, data.store.config)


def page_of_test(
    title: str,
    queries: Sequence[Query],
    similarities: Sequence[np.ndarray],
    members: Sequence[MemberRow],
    config: FeatureConfig,
    truth: Mapping[str, int] | None = None,
) -> PageContent:
    """Report of a ranked test folder.

    similarities: of each query to its candidates, (n_candidates,) each; settings: of the features, for frame rate and up axis; truth:
    the right candidate by query key (`submission.read_ground_truth`). A long list is shortened as in `page_of_folds`.
    """
    told = truth or {}
    captions = {
        query.paths[query.candidates.index(told[query_key(query.id)])]: query.captions for query in queries if _has_truth(query, told)
    }
    whole = sum(len(query.candidates) for query in queries) <= LARGE_GALLERY
    asked = [
        _test_query(query, own, told.get(query_key(query.id)), captions, None if whole else TOP_SHOWN)
        for query, own in zip(queries, similarities, strict=True)
    ]
    sizes = sorted({len(query.candidates) for query in queries})
    facts = [("Queries", f"{len(queries)}, each with {_range_text(sizes)} candidates"), ("Right answers", "not known")]
    recall: tuple[float, ...] = ()
    standing = np.array([query.rank for query in asked if query.rank is not None])
    if len(standing):
        score = metrics.cluster_robust_mean(metrics.rank_value(standing - 1), np.arange(len(standing)))
        recall = tuple((standing <= k).mean() for k in range(1, challenge.TOP_K + 1))
        facts = [("True score, on these queries", _score_text(score)), facts[0], ("Median rank", f"{np.median(standing):g}")]
    if whole:
        chosen, note = np.arange(len(asked)), ""
    else:
        chosen, note = choose_queries(np.array([query.rank or 0 for query in asked])) if len(standing) else _evenly_spaced(len(asked))
    chance = tuple(np.mean([_chance_recall(len(query.candidates)) for query in queries], axis=0)) if recall else ()
    overview = Overview(tuple(facts), recall, chance, tuple(members), note)
    return PageContent(title, overview, tuple(asked[at] for at in chosen), config)


def page_of_submission(kept: Path, queries: Sequence[Query], config: FeatureConfig, truth: Mapping[str, int] | None) -> PageContent:
    """Report of a submission by what is kept beside it: the similarities in its .npz, scores and members in its .json; the rest as
    `page_of_test`."""
    about = files.read_json(kept.with_suffix(".json")) or {}
    members = [
        MemberRow(member["run"], member.get("weight"), _score_text(Score(**member["local_score"])) if "local_score" in member else "")
        for member in about.get("members", ())
    ]
    file = kept.with_suffix(".npz")
    report = page_of_test(kept.stem, queries, external.read_saved_similarities(file, queries), members, config, truth)
    facts, large = report.overview.facts, 1 if report.overview.recall else 0
    if "local_score" in about:
        local = about["local_score"]
        told = _score_text(Score(*(local[name] for name in ("mean", "error", "motions", "groups")))) if local else "not known"
        facts, large = (("Local score, expected on held-out motions" if local else NO_LOCAL_SCORE, told), *facts), large + 1
    ranked = [own for own, member in zip(external.read_saved_members(file, queries), members, strict=False) if member.weight]
    differ = {query.id: disagreement(own) for query, *own in zip(queries, *ranked, strict=True)}
    asked = tuple(replace(query, disagreement=differ[query.id]) for query in report.queries)
    return replace(report, overview=replace(report.overview, facts=facts, large=large), queries=asked)


def disagreement(similarities: Sequence[np.ndarray]) -> float | None:
    """How differently the members of an ensemble rank the candidates of a query: 1 - Spearman's rank correlation, mean over all pairs
    of members. 0: all have the same order; 1: unrelated ones, as are those of a member for whom all candidates are alike.

    similarities: of each member to the candidates, (n,) each. None where there are fewer than two members; a single candidate is in order.
    """
    if len(similarities) < 2:
        return None
    if len(similarities[0]) < 2:
        return 0.0
    above = [np.sign(own[:, None] - own).sum(axis=1) for own in similarities]  # ranks, but for scale
    centred = np.stack(above).astype(float)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    pairs = np.triu_indices(len(unit), k=1)
    return float(np.clip(1 - (unit @ unit.T)[pairs].mean(), 0, 2))


def page_of_search(caption: str, found: SearchResult, top: int) -> PageContent:
    """Report of a search: one query, its `top` best motions."""
    order = np.argsort(-found.similarity, kind="stable")[:top]
    candidates = tuple(
        CandidateView(found.names[at], found.paths[at], rank, float(found.similarity[at]), found.captions[at])
        for rank, at in enumerate(order, start=1)
    )
    overview = Overview((("Model", found.model), ("Gallery", found.about)), note=found.note, large=0)
    query = QueryView("search", (caption,), candidates, len(found.names))
    return PageContent("Search", overview, (query,), found.config)


def choose_queries(ranks: np.ndarray) -> tuple[np.ndarray, str]:
    """Which of the queries with these ranks (Q,) are shown, and the words that say so: all, or the hardest and some of the others."""
    if len(ranks) <= MAX_QUERIES:
        return np.arange(len(ranks)), ""
    order = np.argsort(-ranks, kind="stable")
    hard, rest = order[: MAX_QUERIES // 2], order[MAX_QUERIES // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, MAX_QUERIES - len(hard)).astype(int)]
    note = (
        f"Of the {len(ranks)} queries {MAX_QUERIES} are listed: the {len(hard)} hardest, and {len(spread)} evenly from the others by rank."
    )
    return np.sort(np.concatenate([hard, spread])), note


def _evenly_spaced(count: int) -> tuple[np.ndarray, str]:
    """The same where nobody knows which are hard."""
    if count <= MAX_QUERIES:
        return np.arange(count), ""
    return np.linspace(0, count - 1, MAX_QUERIES).astype(int), f"Of the {count} queries {MAX_QUERIES} are listed, spread evenly over all."


def _caption_query(own: FoldSimilarities, caption: int, data: TrainingData) -> QueryView:
    similarity, right = own.similarity[caption], int(own.motion_idx[caption])
    first = int(np.argmax(own.motion_idx == right))  # captions of a motion stand together
    row, gallery = int(own.row[right]), len(similarity)
    texts, ids = data.training.captions, data.training.ids
    order = np.argsort(-similarity, kind="stable")
    candidates = []
    for rank, at in _shown_candidates(order, right, TOP_SHOWN):
        motion = int(own.row[at])
        candidates.append(CandidateView(ids[motion], data.training.paths[motion], rank, float(similarity[at]), texts[motion]))
    name = ids[row] if len(texts[row]) == 1 else f"{ids[row]}, caption {caption - first + 1}"
    return QueryView(name, (texts[row][caption - first],), tuple(candidates), gallery, ids[row])


def _test_query(
    query: Query, similarity: np.ndarray, truth: int | None, captions: Mapping[Path, tuple[str, ...]], top: int | None
) -> QueryView:
    right = None if truth is None or truth not in query.candidates else query.candidates.index(truth)
    order = np.argsort(-similarity, kind="stable")
    candidates = tuple(
        CandidateView(f"motion_{query.candidates[at]}", query.paths[at], rank, float(similarity[at]), captions.get(query.paths[at], ()))
        for rank, at in _shown_candidates(order, right, top)
    )
    return QueryView(query.id, query.captions, candidates, len(query.candidates), None if right is None else f"motion_{truth}")


def _shown_candidates(order: np.ndarray, right: int | None, top: int | None) -> list[tuple[int, int]]:
    """Rank from 1 and place of the candidates that are shown: the first `top` of `order` (None: all) and the right one."""
    return [(rank, int(at)) for rank, at in enumerate(order, start=1) if top is None or rank <= top or at == right]


def _has_truth(query: Query, truth: Mapping[str, int]) -> bool:
    return truth.get(query_key(query.id)) in query.candidates


def _chance_recall(pool: int) -> tuple[float, ...]:
    """Recall@k of a random order of `pool` candidates."""
    return tuple(min(1.0, k / pool) for k in range(1, challenge.TOP_K + 1))


def _score_text(score: Score) -> str:
    return f"{score.mean:.3f} ± {score.error:.3f}"


def _range_text(numbers: Sequence[int]) -> str:
    """`32`, or `28 to 32`, of sorted numbers."""
    return f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
