"""What the error browser shows: reports made of out-of-fold similarities, of a ranked test folder, of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret import challenge, files, foreign, metrics
from motret.challenge import query_key
from motret.dataset import TrainingData
from motret.features import FeatureSettings
from motret.folds import Folds
from motret.gallery import Found
from motret.metrics import POOL, Score
from motret.page import Candidate, Member, Overview, Query, Report
from motret.rank import fold_similarity, folds_of_runs, out_of_fold_score
from motret.runs import Run

MOST = 200
"""Queries that a page shows."""
TOP = 10
"""Candidates that are shown of a long ranking, besides the right one."""
NO_LOCAL_SCORE = "Local score, since a member has no out-of-fold part"
WHOLE = 1000
"""Candidates in all up to which a page shows every one of every query."""


@dataclass(frozen=True)
class FoldAnswers:
    """Captions and motions that a fold held out.

    similarity: (C, M); owner: (C,) motion of each caption; row: (M,) place of each motion in the training data.
    """

    similarity: np.ndarray
    owner: np.ndarray
    row: np.ndarray


def answers_of_runs(members: Sequence[Run], weights: Sequence[float] | None = None) -> list[FoldAnswers]:
    """The members' mean similarity, each on its own scale, in every fold that all of them have finished. weights: by default equal ones."""
    answers = []
    for fold in folds_of_runs(members, members[0].finished()):
        similarity, out = fold_similarity(members, fold, weights)
        answers.append(FoldAnswers(similarity, out.owner, out.row))
    return answers


def of_runs(members: Sequence[Run], data: TrainingData, folds: Folds, weights: Sequence[float] | None = None) -> Report:
    """Out-of-fold report of a run, or of the weighted mean of several, as `of_folds`."""
    title = f"{members[0].name if len(members) == 1 else f'mean of {len(members)} runs'}, out of fold"
    shares = np.full(len(members), 1 / len(members)) if weights is None else np.array(weights) / np.sum(weights)
    listed = [
        Member(run.name, float(share), _score(out_of_fold_score([run], folds).score)) for run, share in zip(members, shares, strict=True)
    ]
    return of_folds(title, answers_of_runs(members, weights), listed if len(listed) > 1 else [], data, folds)


def of_folds(title: str, answers: Sequence[FoldAnswers], members: Sequence[Member], data: TrainingData, folds: Folds) -> Report:
    """Out-of-fold report: every caption of a held-out motion is a query, the motions of its fold are its gallery.

    Shown are the ten best candidates and the right motion, of at most `MOST` queries; score and recall are those of all queries.
    """
    values, groups, recall, ranks, places = [], [], [], [], []
    for number, own in enumerate(answers):
        gallery = own.similarity.shape[1]
        pool = min(POOL, gallery)
        values.append(metrics.caption_scores(own.similarity, own.owner))
        groups.append(folds.group[own.row])
        better, tied = metrics.count_better(own.similarity, own.owner)
        recall.append(metrics.expected_recall(better, tied, gallery, pool))
        ranks.append(better + tied / 2 + 1)
        places += [(number, caption) for caption in range(len(own.owner))]
    score = metrics.clustered(np.concatenate(values), np.concatenate(groups))
    standing = np.concatenate(ranks)
    chosen, note = choose(standing)
    counts = sorted({own.similarity.shape[1] for own in answers})
    pools = sorted({min(POOL, count) for count in counts})
    overview = Overview(
        facts=(
            (f"Local score, expected in pools of {_span(pools)}", _score(score)),
            ("Queries", f"{len(standing)} captions of {score.motions} held-out motions"),
            ("Gallery of a query", f"{_span(counts)} motions of its fold"),
            ("Median rank", f"{np.median(standing):g}"),
        ),
        recall=tuple(np.concatenate(recall).mean(axis=0)),
        chance=_chance(pools[-1]),
        members=tuple(members),
        note=f"Recall is told for pools of {_span(pools)}, like the score; ranks below are those in the whole fold. {note}".strip(),
    )
    queries = tuple(_caption_query(answers[places[at][0]], places[at][1], data) for at in chosen)
    return Report(title, overview, queries, data.store.settings)


def of_test(
    title: str,
    queries: Sequence[challenge.Query],
    similarities: Sequence[np.ndarray],
    members: Sequence[Member],
    settings: FeatureSettings,
    truth: Mapping[str, int] | None = None,
) -> Report:
    """Report of a ranked test folder.

    similarities: of each query to its candidates, (n_candidates,) each; settings: of the features, for frame rate and up axis; truth:
    the right candidate by query key (`submission.read_ground_truth`). A long list is shortened as in `of_folds`.
    """
    told = truth or {}
    captions = {query.paths[query.candidates.index(told[query_key(query.id)])]: query.captions for query in queries if _knows(query, told)}
    whole = sum(len(query.candidates) for query in queries) <= WHOLE
    asked = [
        _test_query(query, own, told.get(query_key(query.id)), captions, None if whole else TOP)
        for query, own in zip(queries, similarities, strict=True)
    ]
    sizes = sorted({len(query.candidates) for query in queries})
    facts = [("Queries", f"{len(queries)}, each with {_span(sizes)} candidates"), ("Right answers", "not known")]
    recall: tuple[float, ...] = ()
    standing = np.array([query.rank for query in asked if query.rank is not None])
    if len(standing):
        score = metrics.clustered(metrics.rank_value(standing - 1), np.arange(len(standing)))
        recall = tuple((standing <= k).mean() for k in range(1, metrics.TOP + 1))
        facts = [("True score, on these queries", _score(score)), facts[0], ("Median rank", f"{np.median(standing):g}")]
    if whole:
        chosen, note = np.arange(len(asked)), ""
    else:
        chosen, note = choose(np.array([query.rank or 0 for query in asked])) if len(standing) else _spread(len(asked))
    chance = tuple(np.mean([_chance(len(query.candidates)) for query in queries], axis=0)) if recall else ()
    overview = Overview(tuple(facts), recall, chance, tuple(members), note)
    return Report(title, overview, tuple(asked[at] for at in chosen), settings)


def of_submission(kept: Path, queries: Sequence[challenge.Query], settings: FeatureSettings, truth: Mapping[str, int] | None) -> Report:
    """Report of a submission by what is kept beside it: the similarities in its .npz, scores and members in its .json; the rest as
    `of_test`."""
    about = files.read_json(kept.with_suffix(".json")) or {}
    members = [
        Member(member["run"], member.get("weight"), _score(Score(**member["local_score"])) if "local_score" in member else "")
        for member in about.get("members", ())
    ]
    file = kept.with_suffix(".npz")
    report = of_test(kept.stem, queries, foreign.read_similarities(file, queries), members, settings, truth)
    facts, large = report.overview.facts, 1 if report.overview.recall else 0
    if "local_score" in about:
        local = about["local_score"]
        told = _score(Score(*(local[name] for name in ("mean", "error", "motions", "groups")))) if local else "not known"
        facts, large = (("Local score, expected on held-out motions" if local else NO_LOCAL_SCORE, told), *facts), large + 1
    ranked = [own for own, member in zip(foreign.read_alone(file, queries), members, strict=False) if member.weight]
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


def of_search(caption: str, found: Found, top: int) -> Report:
    """Report of a search: one query, its `top` best motions."""
    order = np.argsort(-found.similarity, kind="stable")[:top]
    candidates = tuple(
        Candidate(found.names[at], found.paths[at], rank, float(found.similarity[at]), found.captions[at])
        for rank, at in enumerate(order, start=1)
    )
    overview = Overview((("Model", found.model), ("Gallery", found.about)), note=found.note, large=0)
    query = Query("search", (caption,), candidates, len(found.names))
    return Report("Search", overview, (query,), found.settings)


def choose(ranks: np.ndarray) -> tuple[np.ndarray, str]:
    """Which of the queries with these ranks (Q,) are shown, and the words that say so: all, or the hardest and some of the others."""
    if len(ranks) <= MOST:
        return np.arange(len(ranks)), ""
    order = np.argsort(-ranks, kind="stable")
    hard, rest = order[: MOST // 2], order[MOST // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, MOST - len(hard)).astype(int)]
    note = f"Of the {len(ranks)} queries {MOST} are listed: the {len(hard)} hardest, and {len(spread)} evenly from the others by rank."
    return np.sort(np.concatenate([hard, spread])), note


def _spread(count: int) -> tuple[np.ndarray, str]:
    """The same where nobody knows which are hard."""
    if count <= MOST:
        return np.arange(count), ""
    return np.linspace(0, count - 1, MOST).astype(int), f"Of the {count} queries {MOST} are listed, spread evenly over all."


def _caption_query(own: FoldAnswers, caption: int, data: TrainingData) -> Query:
    similarity, right = own.similarity[caption], int(own.owner[caption])
    first = int(np.argmax(own.owner == right))  # captions of a motion stand together
    row, gallery = int(own.row[right]), len(similarity)
    texts, ids = data.training.captions, data.training.ids
    order = np.argsort(-similarity, kind="stable")
    candidates = []
    for rank, at in _shown(order, right, TOP):
        motion = int(own.row[at])
        candidates.append(Candidate(ids[motion], data.training.paths[motion], rank, float(similarity[at]), texts[motion]))
    name = ids[row] if len(texts[row]) == 1 else f"{ids[row]}, caption {caption - first + 1}"
    return Query(name, (texts[row][caption - first],), tuple(candidates), gallery, ids[row])


def _test_query(
    query: challenge.Query, similarity: np.ndarray, truth: int | None, captions: Mapping[Path, tuple[str, ...]], top: int | None
) -> Query:
    right = None if truth is None or truth not in query.candidates else query.candidates.index(truth)
    order = np.argsort(-similarity, kind="stable")
    candidates = tuple(
        Candidate(f"motion_{query.candidates[at]}", query.paths[at], rank, float(similarity[at]), captions.get(query.paths[at], ()))
        for rank, at in _shown(order, right, top)
    )
    return Query(query.id, query.captions, candidates, len(query.candidates), None if right is None else f"motion_{truth}")


def _shown(order: np.ndarray, right: int | None, top: int | None) -> list[tuple[int, int]]:
    """Rank from 1 and place of the candidates that are shown: the first `top` of `order` (None: all) and the right one."""
    return [(rank, int(at)) for rank, at in enumerate(order, start=1) if top is None or rank <= top or at == right]


def _knows(query: challenge.Query, truth: Mapping[str, int]) -> bool:
    return truth.get(query_key(query.id)) in query.candidates


def _chance(pool: int) -> tuple[float, ...]:
    """Recall@k of a random order of `pool` candidates."""
    return tuple(min(1.0, k / pool) for k in range(1, metrics.TOP + 1))


def _score(score: Score) -> str:
    return f"{score.mean:.3f} ± {score.error:.3f}"


def _span(numbers: Sequence[int]) -> str:
    """`32`, or `28 to 32`, of sorted numbers."""
    return f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
