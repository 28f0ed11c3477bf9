"""A run's candidates scored once more, and the scores kept as a member of the ensemble.

held-out folds, test   tokens              ->  motion tokens of each fold's model, and words
training folds         likelihood, words   ->  one scorer a fold
scorers                rerank              ->  a file: out of fold, and of the test
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from motret.config.scripts import RerankConfig
from motret.data import dataset, folds
from motret.data.dataset import TestData, TrainingData
from motret.data.folds import Folds
from motret.ensemble import external
from motret.ensemble.inference import Encoder
from motret.errors import RunError, WeightsError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.metrics import Score
from motret.evaluation.z_score import ZScore
from motret.rerank.fold_model import FoldModel, PairScorer, TrainingTokens
from motret.rerank.likelihood import LikelihoodScorer
from motret.rerank.tokens import CaptionWords
from motret.rerank.words import WordScorer
from motret.runs import checkpoints, oof
from motret.runs.run import Run, with_output_dir
from motret.runs.selection import select_runs
from motret.utils import files, progress, reading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A way to score. scorer: its class; file: name of the member's file in a run folder, and with
    .pt of the scorer in that of a fold; title: for the terminal."""

    scorer: type[LikelihoodScorer] | type[WordScorer]
    file: str
    title: str


METHODS = {
    "likelihood": Method(LikelihoodScorer, "likelihood", "likelihood"),
    "words": Method(WordScorer, "word_match", "word by word"),
}
SHARED = 64
"""Held-out motions at most whose captions are scored with the same gallery."""
EQUAL_WEIGHT = 0.5
"""Weight of the scores in the mean that is printed; the ensemble fits its own."""


def rerank_runs(config: RerankConfig) -> list[Path]:
    """Writes the scores of each run; logs what they gain out of fold. Returns the files."""
    data = dataset.load_training(config.data, config.machine.jobs)
    split = folds.read_folds(data, config.data.folds_dir)
    allowed = config.allow_towers
    runs = select_runs(config.runs, config.out_dir, data, split, allow_towers=allowed)
    encoder = Encoder(config.machine, config.data.work_dir, data.training.captions)
    return [rerank_run(run, data, split, encoder, config) for run in runs]


def rerank_run(
    run: Run, data: TrainingData, split: Folds, encoder: Encoder, config: RerankConfig
) -> Path:
    """Writes the scores of one run, a fold at a time."""
    if not run.finished_folds():
        fix = "train one: python solution/train.py with --fold 0, or all folds"
        raise RunError(run.folder, "has no finished fold to train scores on", fix)
    run = with_output_dir(run, config.data.work_dir)
    data = dataset.with_features(data, run.features, config.data, config.machine.jobs)
    test = None
    test_dir = config.test_dir or config.data.data_dir / "test"
    if reading.is_folder(test_dir):
        test = dataset.load_test(test_dir, run.features, config.data, config.machine.jobs)
    words: CaptionWords | None = None
    out_of_fold: dict[int, np.ndarray] = {}
    of_test: list[list[np.ndarray]] = []
    for fold in run.finished_folds():
        fold_model = FoldModel.open(run, fold, encoder)
        if config.method == "words" and (words is None or fold_model.own_text_tower):
            words = fold_model.words(all_captions(data, test))
        scorer = fold_scorer(fold_model, words, data, split, config)
        held_out = held_out_scores(fold_model, scorer, data, split, config)
        scale = ZScore.of(held_out[np.isfinite(held_out)])
        out_of_fold[fold] = scale(held_out).astype(np.float16)
        if test is not None:
            of_test.append([scale(of_query) for of_query in test_scores(fold_model, scorer, test)])
    logger.info(describe_gain(run, out_of_fold, split, METHODS[config.method].title))
    path = run.output_dir / f"{METHODS[config.method].file}.npz"
    if test is not None:
        queries = [np.mean(of_query, axis=0) for of_query in zip(*of_test, strict=True)]
        external.save_member(path, test.queries, queries, out_of_fold, split.hash)
    return path


def all_captions(data: TrainingData, test: TestData | None) -> list[str]:
    """Of the training motions, then of the queries."""
    captions = [caption for of_motion in data.training.captions for caption in of_motion]
    if test is not None:
        captions += [caption for query in test.queries for caption in query.captions]
    return captions


def fold_scorer(
    fold_model: FoldModel,
    words: CaptionWords | None,
    data: TrainingData,
    split: Folds,
    config: RerankConfig,
) -> PairScorer:
    """The scorer of a fold: trained on the motions its model was trained on, or read from the
    checkpoint of an earlier call."""
    run, fold, method = fold_model.run, fold_model.fold, METHODS[config.method]
    path = run.output_dir / f"fold{fold}" / f"{method.file}.pt"
    reading.check_output(path.parent, run.output_dir, RunError)
    held_out = oof.load_out_of_fold(run, fold)
    settings = {name: value for name, value in vars(config.scorer).items() if name != "gallery"}
    # embeddings change with the model, unlike the name and the size of its file
    arrays = (held_out.text, held_out.motion)
    embeddings = [hashlib.blake2b(array.tobytes()).hexdigest() for array in arrays]
    key = files.content_hash(settings, embeddings)
    scorer = _trained_before(path, key, words, config, fold_model.encoder.device)
    if scorer is not None:
        return scorer
    mirrored = config.scorer.mirror
    training = TrainingTokens.of(fold_model, data, split.train_idx(fold), words, mirrored)
    scorer = method.scorer.train(training, config.scorer, checkpoints.fold_seed(run.config, fold))
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_checkpoint(path, {"key": key} | scorer.content())
    return scorer


def _trained_before(
    path: Path, key: str, words: CaptionWords | None, config: RerankConfig, device: torch.device
) -> PairScorer | None:
    """The scorer of a checkpoint with this key; None where there is none, with a warning where it
    is broken."""
    if not path.is_file():
        return None
    try:
        content = checkpoints.load_checkpoint(path, device)
        if content["key"] != key:
            return None
        if words is not None:
            return WordScorer.from_content(content, config.scorer, device, words)
        return LikelihoodScorer.from_content(content, config.scorer, device)
    except (WeightsError, KeyError, TypeError, ValueError, RuntimeError):
        logger.warning(f"warning: {path}: is no readable checkpoint: it is trained again")
        return None


def held_out_scores(
    fold_model: FoldModel,
    scorer: PairScorer,
    data: TrainingData,
    split: Folds,
    config: RerankConfig,
) -> np.ndarray:
    """(C, M) scores of the captions and motions that a fold holds out; NaN for pairs that are not
    scored, where there are more motions than `gallery`."""
    val_idx, gallery = split.val_idx(fold_model.fold), config.scorer.gallery
    captions = [data.training.captions[index] for index in val_idx]
    flat = [caption for of_motion in captions for caption in of_motion]
    tokens = fold_model.tokens(data.store, val_idx)
    if not 0 < gallery < len(val_idx):
        return scorer.score(flat, tokens)
    motion_idx = np.repeat(np.arange(len(captions)), [len(of_motion) for of_motion in captions])
    scores = np.full((len(flat), len(val_idx)), np.nan, dtype=np.float32)
    rng = np.random.default_rng([config.machine.seed, fold_model.fold])
    bar = progress.progress_bar(
        list(draw_galleries(len(val_idx), gallery, rng)), desc=f"fold{fold_model.fold} held out"
    )
    for query_idx, gallery_idx in bar:
        caption_idx = np.flatnonzero(np.isin(motion_idx, query_idx))
        scores[np.ix_(caption_idx, gallery_idx)] = scorer.score(
            [flat[index] for index in caption_idx], tokens.select(torch.from_numpy(gallery_idx))
        )
    return scores


def draw_galleries(
    motions: int, gallery: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Motions whose captions are scored, and the motions they are scored with: these and others,
    drawn at random. The captions of every motion are scored once."""
    shared = min(SHARED, gallery // 2)
    galleries = []
    for query_idx in np.array_split(rng.permutation(motions), -(-motions // shared)):
        others = np.setdiff1d(np.arange(motions), query_idx)
        other_idx = rng.choice(others, gallery - len(query_idx), replace=False)
        galleries.append((query_idx, np.sort(np.concatenate([query_idx, other_idx]))))
    return galleries


def test_scores(fold_model: FoldModel, scorer: PairScorer, test: TestData) -> list[np.ndarray]:
    """Scores of each query to its candidates, the mean over its captions.

    A candidate that cannot be used has the score of the worst that can.
    """
    gallery = fold_model.tokens(test.store, np.arange(len(test.store.ids)))
    scores = []
    bar = progress.progress_bar(
        list(zip(test.queries, test.candidate_idx, strict=True)), desc="queries"
    )
    for query, candidate_idx in bar:
        usable = candidate_idx >= 0
        of_query = np.zeros(len(candidate_idx))
        if usable.any():
            candidates = gallery.select(torch.from_numpy(candidate_idx[usable]))
            of_usable = scorer.score(query.captions, candidates).mean(axis=0)
            of_query[usable], of_query[~usable] = of_usable, of_usable.min()
        scores.append(of_query)
    return scores


def describe_gain(run: Run, out_of_fold: dict[int, np.ndarray], split: Folds, title: str) -> str:
    """A line with the local scores of the run, of the scores, and of the mean of both."""
    alone: list[GalleryRanks] = []
    scored: list[GalleryRanks] = []
    both: list[GalleryRanks] = []
    for fold, scores in out_of_fold.items():
        held_out = oof.load_out_of_fold(run, fold)
        similarity = held_out.similarity(run.part_weight)
        similarity = ZScore.of(similarity)(similarity)
        mean = (1 - EQUAL_WEIGHT) * similarity + EQUAL_WEIGHT * scores
        group, compared = split.group[held_out.data_idx], ~np.isnan(scores)
        for ranks, each in ((alone, similarity), (scored, scores), (both, mean)):
            ranks.append(GalleryRanks.of(each, held_out.motion_idx, group, compared))
    gain = _paired_gain(both, alone)
    means = (gallery_ranks.mean_score(ranks).mean for ranks in (alone, scored, both))
    run_score, own_score, both_score = (f"{mean:.4f}" for mean in means)
    return (
        f"{run.name}: alone {run_score}, {title} {own_score}, mean of both {both_score} "
        f"({gain.mean:+.4f} +- {gain.error:.4f})"
    )


def _paired_gain(ranks: Sequence[GalleryRanks], others: Sequence[GalleryRanks]) -> Score:
    """Mean score of one ranking minus another's, motion by motion."""
    differences = gallery_ranks.motion_values(ranks) - gallery_ranks.motion_values(others)
    return metrics.cluster_robust_mean(differences, gallery_ranks.motion_groups(ranks))
