"""The qualitative analysis of a fold: six files on what its model says of the motions it had not seen."""
# MERGED: """Gathers what the qualitative analysis looks at: a fold's embeddings, the words, and the model as it was before training."""
#

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np

from motret.data.batching import MotionTensors
from motret.data.captions import normalise, words
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.data.inputs import CaptionBank
from motret.evaluation import metrics
from motret.formats import challenge
from motret.models import embed
from motret.models.text_tower import TextTower
from motret.report import action_words, plots
from motret.report.plots import Map2D
from motret.runs import checkpoints
from motret.runs.oof import OutOfFold
from motret.runs.run import Run
from motret.utils import files

N_RANDOM_QUERIES, N_TOP = 10, 5
N_FAILURES, N_ABOVE = 10, 3
MIN_PAIRS = 4
"""Held-out motions below which there is nothing to analyse."""
MAX_SHOWN = 100
"""Pairs in the heatmap."""
MIN_PER_ACTION = 3
"""Pairs that share an action word to have a block of their own in the heatmap."""
LEGEND = """R@k: share of captions whose motion is among the first k; rank: median of its places, 1 is best;
score: the competition score a caption expects when its 31 wrong candidates are drawn from these motions;
same word: share of captions whose top motion, right or not, has a caption with the action word.
"""
EMPTY_WORDS = frozenset(("a", "an", "the", "and", "of", "to", "is", "are", "with"))
"""Words that tell no two captions apart."""


@dataclass(frozen=True)
class Pairs:
    """Embeddings of some motions and of the first caption of each, by one model: (N, d) unit vectors."""

    motion: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class AnalysisInputs:
    """What the analysis looks at.

    name: of what is looked at; epoch: of the model; out: its embeddings of held-out motions; captions: (C,) their texts, in the order of
    `out.text`; chosen: (N,) motions for the t-SNE; before: their pairs by the untrained model; seed: of everything drawn.
    """

    name: str
    epoch: int
    out: OutOfFold
    captions: Sequence[str]
    chosen: np.ndarray
    before: Pairs
    seed: int

    def title(self, what: str) -> str:
        return f"{what}: {self.name}, epoch {self.epoch}"

    def first_caption(self) -> np.ndarray:
        """(M,) place of each motion's first caption."""
        return np.unique(self.out.motion_idx, return_index=True)[1]


@dataclass(frozen=True)
class CaptionRanks:
    """sim_cm: (C, M) captions x motions; rank: (C,) 0-based rank of each caption's motion, ties counted half; score: (C,) expected."""

    sim_cm: np.ndarray
    rank: np.ndarray
    score: np.ndarray

    @classmethod
    def of(cls, out: OutOfFold) -> "CaptionRanks":
        similarity = out.similarity()
        better, tied = metrics.count_better(similarity, out.motion_idx)
        gallery = similarity.shape[1]
        return cls(similarity, better + tied / 2, metrics.expected_score(better, tied, gallery, min(challenge.POOL_SIZE, gallery)))


def choose_pairs(motions: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of so many motions, in order; drawn."""
    return np.sort(np.random.default_rng([seed, 1]).permutation(motions)[:most])


def write_analysis(folder: Path, look: AnalysisInputs) -> np.ndarray:
    """Writes the six files of `qualitative_epoch<N>/` into `folder`; returns the t-SNE of the trained pairs, (2N, 2), texts first."""
    ranks, actions = CaptionRanks.of(look.out), action_words.action_words(look.captions)
    after, n = Pairs(look.out.motion[look.chosen], look.out.text[look.first_caption()[look.chosen]]), look.epoch
    _heatmap(folder / f"1_heatmap_epoch{n}.png", look, ranks, actions)
    _write_text(folder / f"2_query_retrieval_epoch{n}.txt", query_retrieval(look, ranks))
    _write_text(folder / f"3_category_analysis_epoch{n}.txt", category_analysis(look, ranks, actions))
    flat = [tsne_points(pairs, look.seed) for pairs in (look.before, after)]
    names = ("before training", f"after epoch {n}")
    maps = [_make_map(name, pairs, points) for name, pairs, points in zip(names, (look.before, after), flat, strict=True)]
    plots.plot_tsne(folder / f"4_tsne_epoch{n}.png", look.title("t-SNE of texts and motions"), maps)
    _similarity(folder / f"5_similarity_epoch{n}.png", look, ranks)
    _write_text(folder / f"6_failure_analysis_epoch{n}.txt", failure_analysis(look, ranks))
    return flat[1]


def latent_space(path: Path, look: AnalysisInputs, points: np.ndarray) -> None:
    """The t-SNE of the trained pairs alone, as `write` returned it."""
    after = Pairs(look.out.motion[look.chosen], look.out.text[look.first_caption()[look.chosen]])
    plots.plot_tsne(path, look.title("t-SNE of texts and motions"), [_make_map("held-out pairs", after, points)])


def tsne_points(pairs: Pairs, seed: int) -> np.ndarray:
    """(2N, 2) t-SNE of texts, then motions, by cosine distance; N >= 2."""
    from sklearn import manifold  # slow to import, and training imports this module

    both = np.concatenate([pairs.text, pairs.motion])
    iterations = {"max_iter": 500} if "max_iter" in signature(manifold.TSNE).parameters else {"n_iter": 500}  # before 1.5
    perplexity = min(30, (len(both) - 1) / 3)
    made = manifold.TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=seed, n_jobs=1, **iterations)
    return made.fit_transform(both)


def _make_map(name: str, pairs: Pairs, points: np.ndarray) -> Map2D:
    cosine = float((pairs.text * pairs.motion).sum(axis=1).mean())
    return Map2D(f"{name}: mean cosine of right pairs {cosine:.2f}", *np.split(points, 2))


def _heatmap(path: Path, look: AnalysisInputs, ranks: CaptionRanks, actions: dict[str, str]) -> None:
    """A draw of pairs, sorted by the first action word of the caption (large groups first), then by how alike the motions are."""
    chosen = choose_pairs(len(look.out.ids), MAX_SHOWN, look.seed + 1)
    first = look.first_caption()[chosen]
    said = [(*action_words.actions_in(look.captions[caption], actions), None)[0] for caption in first]
    said = [name if said.count(name) >= MIN_PER_ACTION else None for name in said]
    size = {name: said.count(name) for name in said}
    place = np.empty(len(chosen), dtype=int)
    place[_order_by_similarity(look.out.motion[chosen])] = np.arange(len(chosen))
    order = sorted(range(len(chosen)), key=lambda row: (said[row] is None, -size[said[row]], str(said[row]), place[row]))
    groups = [actions.get(said[row] or "", "other") for row in order]
    shown = ranks.sim_cm[first[order]][:, chosen[order]]
    plots.plot_heatmap(path, look.title(f"{len(chosen)} texts and motions by action word"), shown, groups)


def _order_by_similarity(vectors: np.ndarray) -> np.ndarray:
    """An order of (N, d) unit vectors in which neighbours are alike: along the main axis of what they differ in."""
    centred = vectors - vectors.mean(axis=0)
    return np.argsort(np.linalg.svd(centred, full_matrices=False)[0][:, 0], kind="stable")


def _similarity(path: Path, look: AnalysisInputs, ranks: CaptionRanks) -> None:
    rows, motion_idx = np.arange(len(look.out.motion_idx)), look.out.motion_idx
    problem = ranks.sim_cm.copy()
    problem[rows, motion_idx] = -np.inf
    beaten = 1 - ranks.rank.mean() / max(1, problem.shape[1] - 1)
    title = f"{look.title('Right and wrong pairs')}\nA right pair beats a wrong one in {beaten:.1%}"
    plots.plot_similarities(path, title, ranks.sim_cm[rows, motion_idx], problem[np.isfinite(problem)], problem.max(axis=1))


# ---- texts


def query_retrieval(look: AnalysisInputs, ranks: CaptionRanks) -> list[str]:
    """What the model finds for some captions that are drawn: its top motions, and the right one wherever it stands."""
    chosen = np.sort(np.random.default_rng([look.seed, 2]).permutation(len(look.captions))[:N_RANDOM_QUERIES])
    gallery = len(look.out.ids)
    lines = [look.title("Text to motion"), f"{len(chosen)} random captions, top {min(N_TOP, gallery)} of {gallery} held-out motions."]
    lines += ["* marks the right motion; the number after the rank is the cosine.", ""]
    for caption in chosen:
        order, right = np.argsort(-ranks.sim_cm[caption], kind="stable"), look.out.motion_idx[caption]
        at = int(np.flatnonzero(order == right)[0])
        lines.append(f'"{look.captions[caption]}"  (motion {look.out.ids[right]}, rank {at + 1} of {gallery})')
        lines += [_row(look, ranks, caption, order, place) for place in range(min(N_TOP, gallery))]
        if at >= N_TOP:
            lines += ["        ...", _row(look, ranks, caption, order, at)]
        lines.append("")
    return lines


def _row(look: AnalysisInputs, ranks: CaptionRanks, caption: int, order: np.ndarray, place: int) -> str:
    motion = order[place]
    mark = "*" if motion == look.out.motion_idx[caption] else " "
    told = look.captions[look.first_caption()[motion]]
    return f"  {mark} {place + 1:>4}  {ranks.sim_cm[caption, motion]:6.3f}  {look.out.ids[motion]}  {told}"


def category_analysis(look: AnalysisInputs, ranks: CaptionRanks, actions: dict[str, str]) -> list[str]:
    """How well the captions with each action word are answered."""
    said = [set(action_words.actions_in(caption, actions)) for caption in look.captions]
    shown: list[set[str]] = [set() for _ in look.out.ids]
    for motion_idx, own in zip(look.out.motion_idx, said, strict=True):
        shown[motion_idx] |= own
    top = ranks.sim_cm.argmax(axis=1)
    about = f"{len(look.captions)} captions, each against {len(look.out.ids)} held-out motions."
    lines = [look.title("Accuracy by action word"), about, "", *LEGEND.splitlines(), ""]
    lines.append(f"{'action word':<16}{'captions':>9}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'rank':>8}{'score':>8}{'same word':>11}")
    table = []
    for name, word in actions.items():
        rows = np.array([row for row, own in enumerate(said) if name in own])
        same = np.mean([name in shown[top[row]] for row in rows])
        table.append((float(ranks.score[rows].mean()), _about(word, rows, ranks) + f"{same:>11.1%}"))
    lines += [line for _, line in sorted(table, reverse=True)]
    others = np.array([row for row, own in enumerate(said) if not own], dtype=int)
    if len(others):
        lines.append(_about("(none of them)", others, ranks))
    return [*lines, "", _about("every caption", np.arange(len(said)), ranks)]


def _about(name: str, rows: np.ndarray, ranks: CaptionRanks) -> str:
    found = [float((ranks.rank[rows] < k).mean()) for k in (1, 5, 10)]
    recalled = "".join(f"{share:>8.1%}" for share in found)
    return f"{name:<16}{len(rows):>9}{recalled}{np.median(ranks.rank[rows]) + 1:>8.1f}{ranks.score[rows].mean():>8.3f}"


def failure_analysis(look: AnalysisInputs, ranks: CaptionRanks) -> list[str]:
    """The captions whose motion is ranked worst: what was ranked above, and which words tell them apart."""
    worst = _worst(look, ranks)
    gallery, missed = len(look.out.ids), np.flatnonzero(ranks.rank >= challenge.TOP_K)
    share = len(missed) / len(look.captions)
    twins = sum(_below_a_twin(look, ranks, missed))
    lines = [look.title("Worst failures"), ""]
    lines.append(f"{len(missed)} of {len(look.captions)} captions ({share:.1%}) miss the top {challenge.TOP_K} of {gallery} motions.")
    lines.append(f"Of these {len(missed)}, {twins} stand below a motion with a caption of the same words, which no text tells apart.")
    lines += [f"The {len(worst)} worst, no motion and no text twice, with what was ranked first instead; the numbers are cosines.", ""]
    for caption in worst:
        lines += _failure(look, ranks, caption)
    return lines


def _worst(look: AnalysisInputs, ranks: CaptionRanks) -> list[int]:
    """The captions whose motions are ranked worst, no motion and no text twice."""
    chosen: list[int] = []
    motions: set[int] = set()
    texts: set[str] = set()
    for caption in np.argsort(-ranks.rank, kind="stable"):
        motion, told = int(look.out.motion_idx[caption]), normalise(look.captions[caption])
        if len(chosen) < N_FAILURES and motion not in motions and told not in texts:
            chosen.append(int(caption))
            motions.add(motion)
            texts.add(told)
    return chosen


def _above(look: AnalysisInputs, ranks: CaptionRanks, caption: int) -> list[int]:
    """The wrong motions that are ranked above a caption's own, or beside it, best first."""
    similarity, right = ranks.sim_cm[caption], look.out.motion_idx[caption]
    return [int(motion) for motion in np.argsort(-similarity, kind="stable") if similarity[motion] >= similarity[right] and motion != right]


def _caption_text(look: AnalysisInputs, motion: int) -> list[str]:
    return [look.captions[row] for row in np.flatnonzero(look.out.motion_idx == motion)]


def _below_a_twin(look: AnalysisInputs, ranks: CaptionRanks, rows: np.ndarray) -> list[bool]:
    """Whether each of some captions stands below, or beside, another motion that has a caption of the same words."""
    said = [normalise(caption) for caption in look.captions]
    owners: dict[str, set[int]] = {}
    for told, motion_idx in zip(said, look.out.motion_idx, strict=True):
        owners.setdefault(told, set()).add(int(motion_idx))
    found = []
    for row in rows:
        similarity, right = ranks.sim_cm[row], int(look.out.motion_idx[row])
        found.append(any(similarity[other] >= similarity[right] for other in owners[said[row]] - {right}))
    return found


def _failure(look: AnalysisInputs, ranks: CaptionRanks, caption: int) -> list[str]:
    right, told = look.out.motion_idx[caption], look.captions[caption]
    similarity, own = ranks.sim_cm[caption], set(words(told))
    lines = [f'"{told}"', f"   motion {look.out.ids[right]} is {ranks.rank[caption] + 1:g} of {len(look.out.ids)}, {similarity[right]:.3f}"]
    for place, motion in enumerate(_above(look, ranks, caption)[:N_ABOVE], start=1):
        nearest = max(_caption_text(look, motion), key=lambda other: len(own & set(words(other))) / len(own | set(words(other)) or {""}))
        lines.append(f'   {place}. motion {look.out.ids[motion]}, {similarity[motion]:.3f}: "{nearest}"')
        mine, theirs = _words_only_in(told, nearest), _words_only_in(nearest, told)
        lines.append(f"      only the query: {mine or '-'}; only this: {theirs or '-'}" if mine or theirs else "      the same words")
    return [*lines, ""]


def _words_only_in(one: str, other: str) -> str:
    """The words of one caption that another has not, in their order, but for empty ones."""
    return ", ".join(dict.fromkeys(word for word in words(one) if word not in EMPTY_WORDS.union(words(other))))


def _write_text(path: Path, lines: Sequence[str]) -> None:
    files.write_text(path, "".join(f"{line.rstrip()}\n" for line in lines))


MakeBank = Callable[[Sequence[str]], CaptionBank]
"""Gives a bank that holds these captions."""
MakeAutocast = Callable[[], contextlib.AbstractContextManager]


def model_title(run: Run, fold: int | None) -> str:
    """A fold's model in the title of a picture."""
    return f"{run.name}, {'all data' if fold is None else f'fold {fold}'}"


def gather_inputs(
    run: Run,
    data: TrainingData,
    folds: Folds,
    fold: int,
    epoch: int,
    out: OutOfFold,
    motions: MotionTensors,
    banker: MakeBank,
    tower: TextTower,
    precision: MakeAutocast,
    most: int,
) -> AnalysisInputs:
    """What the analysis of one fold looks at; out: by the model of this epoch; most: pairs for the t-SNE."""
    seed = run.config.machine.seed
    chosen = choose_pairs(len(out.data_idx), most, seed)
    model = checkpoints.init_model(run, data, motions, tower, fold, folds.train_idx(fold))
    told = [data.training.captions[row][0] for row in out.data_idx[chosen]]
    bank = banker(told)
    before = Pairs(
        embed.embed_motions(model, motions, out.data_idx[chosen], precision()),
        embed.embed_captions(model, bank, bank.indices(told).to(motions.device), precision()),
    )
    captions = [caption for row in out.data_idx for caption in data.training.captions[row]]
    return AnalysisInputs(model_title(run, fold), epoch, out, captions, chosen, before, seed)
