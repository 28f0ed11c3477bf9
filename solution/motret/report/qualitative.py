"""The qualitative analysis of a fold: six files on how its model ranks the held-out motions.

qualitative_epoch<N>/ holds 1_heatmap, 4_tsne and 5_similarity (PNG), and 2_query_retrieval,
3_category_analysis and 6_failure_analysis (text).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.data.inputs import CaptionBank
from motret.models import embed
from motret.models.text_tower import TextTower
from motret.report import action_words, embedding_plots, qualitative_texts
from motret.report.embedding_plots import Map2D
from motret.report.qualitative_texts import CaptionRanks, FoldModel
from motret.runs import checkpoints
from motret.runs.oof import OutOfFold
from motret.runs.run import Run
from motret.utils import files
from motret.utils.packages import argument_name

MIN_PAIRS = 4
"""Held-out motions that an analysis needs."""
MAX_HEATMAP_PAIRS = 100
MIN_PER_ACTION = 3
"""Pairs that share an action word to have a group of their own in the heatmap."""


@dataclass(frozen=True)
class Pairs:
    """Embeddings of some motions and of the first caption of each: (N, d) unit vectors."""

    motion: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class AnalysisInputs(FoldModel):
    """What the analysis needs besides the fold's embeddings.

    tsne_idx: (N,) motions of the t-SNE; before: their pairs by the untrained model; seed: of the
    random choices.
    """

    tsne_idx: np.ndarray
    before: Pairs
    seed: int

    def after(self) -> Pairs:
        """The pairs of the t-SNE by the trained model."""
        captions = self.first_captions()[self.tsne_idx]
        return Pairs(self.out.motion[self.tsne_idx], self.out.text[captions])


@dataclass(frozen=True)
class EmbeddingTools:
    """How motions and captions are embedded.

    make_bank: puts captions into a bank on the device; autocast: the precision of the models.
    """

    motions: MotionTensors
    tower: TextTower
    make_bank: Callable[[Sequence[str]], CaptionBank]
    autocast: Callable[[], AbstractContextManager[None]]


def model_title(run: Run, fold: int | None) -> str:
    """A fold's model in the title of a figure."""
    return f"{run.name}, {'all data' if fold is None else f'fold {fold}'}"


def gather_inputs(
    run: Run,
    data: TrainingData,
    folds: Folds,
    fold: int,
    epoch: int,
    out: OutOfFold,
    tools: EmbeddingTools,
    max_pairs: int,
) -> AnalysisInputs:
    """Gathers what the analysis of one fold needs.

    out: embeddings by the model of this epoch; max_pairs: pairs of the t-SNE.
    """
    seed = run.config.machine.seed
    tsne_idx = sample_pairs(len(out.data_idx), max_pairs, seed)
    captions = [data.training.captions[index] for index in out.data_idx]
    first_captions = [captions[index][0] for index in tsne_idx]
    untrained = checkpoints.init_model(
        run, data, tools.motions, tools.tower, fold, folds.train_idx(fold)
    )
    bank = tools.make_bank(first_captions)
    caption_idx = bank.indices(first_captions)
    before = Pairs(
        embed.embed_motions(untrained, tools.motions, out.data_idx[tsne_idx], tools.autocast()),
        embed.embed_captions(untrained, bank, caption_idx, tools.autocast()),
    )
    texts = [caption for motion_captions in captions for caption in motion_captions]
    return AnalysisInputs(model_title(run, fold), epoch, out, texts, tsne_idx, before, seed)


def sample_pairs(n_motions: int, max_pairs: int, seed: int) -> np.ndarray:
    """Indices of at most `max_pairs` random motions, sorted."""
    return np.sort(np.random.default_rng([seed, 1]).permutation(n_motions)[:max_pairs])


def write_analysis(folder: Path, inputs: AnalysisInputs) -> np.ndarray:
    """Writes the six files into `folder`; returns the t-SNE of the trained pairs.

    The points are (2N, 2), texts first.
    """
    epoch = inputs.epoch
    ranks = CaptionRanks.of(inputs.out)
    actions = action_words.action_words(inputs.captions)
    _plot_heatmap(folder / f"1_heatmap_epoch{epoch}.png", inputs, ranks, actions)
    texts = {
        "2_query_retrieval": qualitative_texts.query_retrieval(inputs, ranks, inputs.seed),
        "3_category_analysis": qualitative_texts.category_analysis(inputs, ranks, actions),
        "6_failure_analysis": qualitative_texts.failure_analysis(inputs, ranks),
    }
    for name, lines in texts.items():
        text = "".join(f"{line.rstrip()}\n" for line in lines)
        files.write_text(folder / f"{name}_epoch{epoch}.txt", text)
    before, after = inputs.before, inputs.after()
    before_points, points = (tsne_points(pairs, inputs.seed) for pairs in (before, after))
    maps = [
        _make_map("before training", before, before_points),
        _make_map(f"after epoch {epoch}", after, points),
    ]
    title = inputs.title("t-SNE of texts and motions")
    embedding_plots.plot_tsne(folder / f"4_tsne_epoch{epoch}.png", title, maps)
    _plot_similarities(folder / f"5_similarity_epoch{epoch}.png", inputs, ranks)
    return points


def plot_latent_space(path: Path, inputs: AnalysisInputs, points: np.ndarray) -> None:
    """Draws the t-SNE of the trained pairs alone; points: as from `write_analysis`."""
    maps = [_make_map("held-out pairs", inputs.after(), points)]
    embedding_plots.plot_tsne(path, inputs.title("t-SNE of texts and motions"), maps)


def tsne_points(pairs: Pairs, seed: int) -> np.ndarray:
    """(2N, 2) t-SNE of texts, then motions, by cosine distance; N >= 2."""
    from sklearn import manifold  # slow to import, and training imports this module

    embeddings = np.concatenate([pairs.text, pairs.motion])
    iterations = argument_name(manifold.TSNE, "max_iter", "n_iter")  # since scikit-learn 1.5
    options: dict[str, Any] = {
        "metric": "cosine",
        "init": "pca",
        "perplexity": min(30, (len(embeddings) - 1) / 3),
        "random_state": seed,
        "n_jobs": 1,
        iterations: 500,
    }
    return np.asarray(manifold.TSNE(**options).fit_transform(embeddings))


def _make_map(name: str, pairs: Pairs, points: np.ndarray) -> Map2D:
    cosine = float((pairs.text * pairs.motion).sum(axis=1).mean())
    text, motion = np.split(points, 2)
    return Map2D(f"{name}: mean cosine of matching pairs {cosine:.2f}", text, motion)


def _plot_heatmap(
    path: Path, inputs: AnalysisInputs, ranks: CaptionRanks, actions: dict[str, str]
) -> None:
    """Draws random pairs by the first action word of their caption, frequent words first.

    Within a word, neighbours are similar motions.
    """
    motion_idx = sample_pairs(len(inputs.out.ids), MAX_HEATMAP_PAIRS, inputs.seed + 1)
    caption_idx = inputs.first_captions()[motion_idx]
    stems = [action_words.actions_in(inputs.captions[index], actions) for index in caption_idx]
    first = [caption_stems[0] if caption_stems else None for caption_stems in stems]
    words = [word if first.count(word) >= MIN_PER_ACTION else None for word in first]
    position = np.empty(len(motion_idx), dtype=int)
    position[_order_by_similarity(inputs.out.motion[motion_idx])] = np.arange(len(motion_idx))

    def sort_key(pair: int) -> tuple[bool, int, str, int]:
        word = words[pair]
        return word is None, -words.count(word), str(word), int(position[pair])

    order = sorted(range(len(motion_idx)), key=sort_key)
    groups = [actions.get(words[pair] or "", "other") for pair in order]
    sim_nn = ranks.sim_cm[caption_idx[order]][:, motion_idx[order]]
    title = inputs.title(f"{len(motion_idx)} texts and motions by action word")
    embedding_plots.plot_heatmap(path, title, sim_nn, groups)


def _order_by_similarity(embeddings: np.ndarray) -> np.ndarray:
    """An order of (N, d) unit vectors in which neighbours are similar: along the main component."""
    centred = embeddings - embeddings.mean(axis=0)
    return np.argsort(np.linalg.svd(centred, full_matrices=False)[0][:, 0], kind="stable")


def _plot_similarities(path: Path, inputs: AnalysisInputs, ranks: CaptionRanks) -> None:
    caption_idx, motion_idx = np.arange(len(inputs.out.motion_idx)), inputs.out.motion_idx
    positives = ranks.sim_cm[caption_idx, motion_idx]
    negatives = ranks.sim_cm.copy()
    negatives[caption_idx, motion_idx] = -np.inf
    share_above = 1 - ranks.rank.mean() / max(1, negatives.shape[1] - 1)
    title = (
        f"{inputs.title('Matching pairs and negatives')}\n"
        f"A matching pair scores above a negative of its text in {share_above:.1%}"
    )
    embedding_plots.plot_similarities(
        path, title, positives, negatives[np.isfinite(negatives)], negatives.max(axis=1)
    )
