"""The texts of the qualitative analysis: retrieval, accuracy by action word, failures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motret.data.captions import normalize, words
from motret.evaluation import metrics
from motret.formats.challenge import POOL_SIZE, TOP_K
from motret.report import action_words
from motret.runs.oof import OutOfFold

N_QUERIES, N_TOP = 10, 5
N_FAILURES, N_ABOVE = 10, 3
FUNCTION_WORDS = frozenset(("a", "an", "the", "and", "of", "to", "is", "are", "with"))
"""Words that distinguish no two captions."""
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class FoldModel:
    """The model of a fold at an epoch, and the held-out motions.

    name: of the model; out: its embeddings of them; captions: (C,) their captions, in the order of
    `out.text`.
    """

    name: str
    epoch: int
    out: OutOfFold
    captions: Sequence[str]

    def title(self, text: str) -> str:
        return f"{text}: {self.name}, epoch {self.epoch}"

    def first_captions(self) -> np.ndarray:
        """(M,) index of each motion's first caption."""
        return np.unique(self.out.motion_idx, return_index=True)[1]

    def captions_of(self, motion: int) -> list[str]:
        caption_idx = np.flatnonzero(self.out.motion_idx == motion).tolist()
        return [self.captions[index] for index in caption_idx]


@dataclass(frozen=True)
class CaptionRanks:
    """How each caption ranks the held-out motions.

    sim_cm: (C, M) captions x motions; rank: (C,) 0-based rank of each caption's motion, ties
    counted half; score: (C,) expected competition score in pools of `pool` motions.
    """

    sim_cm: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    pool: int

    @classmethod
    def of(cls, out: OutOfFold) -> "CaptionRanks":
        sim_cm = out.similarity()
        better, tied = metrics.count_better(sim_cm, out.motion_idx)
        gallery = sim_cm.shape[1]
        pool = min(POOL_SIZE, gallery)
        score = metrics.expected_score(better, tied, gallery, pool)
        return cls(sim_cm, better + tied / 2, score, pool)


# ---- retrieval


def query_retrieval(model: FoldModel, ranks: CaptionRanks, seed: int) -> list[str]:
    """The top motions of some random captions, and the matching one at any rank."""
    caption_idx = np.random.default_rng([seed, 2]).permutation(len(model.captions))
    queries = np.sort(caption_idx[:N_QUERIES])
    gallery = len(model.out.ids)
    n_top = min(N_TOP, gallery)
    lines = [
        model.title("Text-to-motion retrieval"),
        f"{len(queries)} random captions, top {n_top} of {gallery} held-out motions.",
        "* marks the matching motion. The columns: rank, cosine similarity, motion, its first "
        "caption.",
        "",
    ]
    for caption in queries:
        order = np.argsort(-ranks.sim_cm[caption], kind="stable")
        match = model.out.motion_idx[caption]
        position = int(np.flatnonzero(order == match)[0])
        motion_id = model.out.ids[match]
        lines.append(
            f'"{model.captions[caption]}"  (motion {motion_id}, rank {position + 1} of {gallery})'
        )
        lines += [_retrieved(model, ranks, caption, order, index) for index in range(n_top)]
        if position >= N_TOP:
            lines += ["        ...", _retrieved(model, ranks, caption, order, position)]
        lines.append("")
    return lines


def _retrieved(
    model: FoldModel, ranks: CaptionRanks, caption: int, order: np.ndarray, position: int
) -> str:
    """A line on the motion at a position of the order."""
    motion = order[position]
    mark = "*" if motion == model.out.motion_idx[caption] else " "
    cosine, motion_id = ranks.sim_cm[caption, motion], model.out.ids[motion]
    text = model.captions[model.first_captions()[motion]]
    return f"  {mark} {position + 1:>4}  {cosine:6.3f}  {motion_id}  {text}"


# ---- accuracy by action word


def category_analysis(model: FoldModel, ranks: CaptionRanks, actions: dict[str, str]) -> list[str]:
    """Recall, rank and score of the captions with each action word, best score first."""
    stems = [set(action_words.actions_in(caption, actions)) for caption in model.captions]
    motion_stems: list[set[str]] = [set() for _ in model.out.ids]
    for motion, caption_stems in zip(model.out.motion_idx, stems, strict=True):
        motion_stems[motion] |= caption_stems
    top = ranks.sim_cm.argmax(axis=1)
    recalls = "".join(f"{f'R@{k}':>8}" for k in RECALLS)
    lines = [
        model.title("Accuracy by action word"),
        f"{len(model.captions)} captions, each ranks {len(model.out.ids)} held-out motions.",
        "",
        "R@k: share of captions whose matching motion is among the first k.",
        "rank: median rank of the matching motion; 1 is best.",
        f"score: competition score expected in pools of {ranks.pool} of these motions.",
        "same word: share of captions whose top motion, matching or not, has a caption with the "
        "action word.",
        "",
        f"{'action word':<16}{'captions':>9}{recalls}{'rank':>8}{'score':>8}{'same word':>11}",
    ]
    table = []
    for name, word in actions.items():
        caption_idx = np.array([index for index, names in enumerate(stems) if name in names])
        same = np.mean([name in motion_stems[top[index]] for index in caption_idx])
        score = float(ranks.score[caption_idx].mean())
        table.append((score, _statistics(word, caption_idx, ranks) + f"{same:>11.1%}"))
    lines += [line for _, line in sorted(table, reverse=True)]
    without = np.array([index for index, names in enumerate(stems) if not names], dtype=int)
    if len(without):
        lines.append(_statistics("(none of them)", without, ranks))
    return [*lines, "", _statistics("every caption", np.arange(len(stems)), ranks)]


def _statistics(name: str, caption_idx: np.ndarray, ranks: CaptionRanks) -> str:
    """A line of the table on these captions."""
    rank = ranks.rank[caption_idx]
    recalls = "".join(f"{float((rank < k).mean()):>8.1%}" for k in RECALLS)
    score = ranks.score[caption_idx].mean()
    return f"{name:<16}{len(caption_idx):>9}{recalls}{np.median(rank) + 1:>8.1f}{score:>8.3f}"


# ---- failures


def failure_analysis(model: FoldModel, ranks: CaptionRanks) -> list[str]:
    """The captions whose motion is ranked worst, the motions above it, the words that differ."""
    worst = _worst_captions(model, ranks)
    gallery, n_captions = len(model.out.ids), len(model.captions)
    missed = np.flatnonzero(ranks.rank >= TOP_K)
    n_same_words = sum(_below_same_words(model, ranks, missed))
    fraction = len(missed) / n_captions
    lines = [
        model.title("Worst failures"),
        "",
        f"{len(missed)} of {n_captions} captions ({fraction:.1%}) miss the top {TOP_K} "
        f"of {gallery} motions.",
        f"In {n_same_words} of these {len(missed)} a motion with a caption of the same words ranks "
        "above: no text can separate the two.",
        f"The {len(worst)} worst follow, each motion and each text once, with the motions ranked "
        "above. The numbers are cosine similarities.",
        "",
    ]
    for caption in worst:
        lines += _describe_failure(model, ranks, caption)
    return lines


def _worst_captions(model: FoldModel, ranks: CaptionRanks) -> list[int]:
    """The captions whose motions are ranked worst; each motion and each text once."""
    worst: list[int] = []
    motions: set[int] = set()
    texts: set[str] = set()
    for caption in np.argsort(-ranks.rank, kind="stable"):
        motion, text = int(model.out.motion_idx[caption]), normalize(model.captions[caption])
        if len(worst) < N_FAILURES and motion not in motions and text not in texts:
            worst.append(int(caption))
            motions.add(motion)
            texts.add(text)
    return worst


def _motions_above(model: FoldModel, ranks: CaptionRanks, caption: int) -> list[int]:
    """The motions that score at least as high as the matching one, best first."""
    similarity, match = ranks.sim_cm[caption], model.out.motion_idx[caption]
    order = np.argsort(-similarity, kind="stable")
    above = order[(similarity[order] >= similarity[match]) & (order != match)]
    return [int(motion) for motion in above]


def _below_same_words(model: FoldModel, ranks: CaptionRanks, caption_idx: np.ndarray) -> list[bool]:
    """Whether a motion with a caption of the same words scores at least as high, by caption."""
    texts = [normalize(caption) for caption in model.captions]
    motions_with: dict[str, set[int]] = {}
    for text, motion in zip(texts, model.out.motion_idx, strict=True):
        motions_with.setdefault(text, set()).add(int(motion))
    return [
        not motions_with[texts[caption]].isdisjoint(_motions_above(model, ranks, caption))
        for caption in caption_idx
    ]


def _describe_failure(model: FoldModel, ranks: CaptionRanks, caption: int) -> list[str]:
    match, query = model.out.motion_idx[caption], model.captions[caption]
    similarity = ranks.sim_cm[caption]
    rank = f"rank {ranks.rank[caption] + 1:g} of {len(model.out.ids)}"
    lines = [f'"{query}"', f"   motion {model.out.ids[match]}: {rank}, {similarity[match]:.3f}"]
    above = _motions_above(model, ranks, caption)[:N_ABOVE]
    for position, motion in enumerate(above, start=1):
        text = max(model.captions_of(motion), key=lambda caption: _word_overlap(query, caption))
        motion_id = model.out.ids[motion]
        lines.append(f'   {position}. motion {motion_id}, {similarity[motion]:.3f}: "{text}"')
        missing, added = _words_only_in(query, text), _words_only_in(text, query)
        if missing or added:
            lines.append(f"      only in the query: {missing or '-'}; only here: {added or '-'}")
        else:
            lines.append("      the same words")
    return [*lines, ""]


def _word_overlap(first: str, second: str) -> float:
    """Jaccard index of the words of two captions."""
    first_words, second_words = set(words(first)), set(words(second))
    return len(first_words & second_words) / max(1, len(first_words | second_words))


def _words_only_in(first: str, second: str) -> str:
    """The words of the first caption that the second lacks, in order, without function words."""
    common = FUNCTION_WORDS.union(words(second))
    return ", ".join(dict.fromkeys(word for word in words(first) if word not in common))
