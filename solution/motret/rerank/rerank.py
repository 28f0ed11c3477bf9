"""A run's candidates scored once more, word by word, and kept as a member of the ensemble.

held-out folds, test   tokens            ->  words and tokens of each fold's model
training folds         matcher_training  ->  one matcher a fold
matchers               rerank            ->  word_match.npz: out of fold, and of the test
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
from motret.data.batching import MotionTensors
from motret.data.dataset import TestData, TrainingData
from motret.data.feature_store import FeatureStore
from motret.data.folds import Folds
from motret.ensemble import external
from motret.ensemble.inference import Encoder
from motret.errors import RunError, WeightsError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.metrics import Score
from motret.evaluation.z_score import ZScore
from motret.models.dual_encoder import DualEncoder
from motret.models.token_matcher import Sequences, TokenMatcher
from motret.rerank import matcher_training, tokens
from motret.rerank.matcher_training import MatcherData
from motret.rerank.tokens import CaptionWords
from motret.runs import checkpoints, oof
from motret.runs.run import Run, with_output_dir
from motret.runs.selection import select_runs
from motret.utils import files, reading

logger = logging.getLogger(__name__)

FILE_NAME = "word_match.npz"
"""The member's file in a run folder."""
CHECKPOINT = "word_match.pt"
"""The matcher of a fold, in the fold's folder."""
LOWEST_SCORE = -1.0
"""Of a candidate that cannot be used: scores are weighted means of cosines."""
EQUAL_WEIGHT = 0.5
"""Weight of the word scores in the mean that is printed; the ensemble fits its own."""


@dataclass(frozen=True)
class FoldModel:
    """The finished model of one fold, and the words of all captions as it reads them."""

    run: Run
    fold: int
    model: DualEncoder
    captions: CaptionWords
    encoder: Encoder

    @classmethod
    def open(
        cls,
        run: Run,
        fold: int,
        encoder: Encoder,
        captions: Sequence[str],
        frozen: CaptionWords | None = None,
    ) -> "FoldModel":
        """captions: all that are read later; frozen: their words, where the text tower is the same
        in all folds and another fold has read them."""
        model, device = encoder.load_model(run, fold), encoder.device
        tower, precision = model.text_tower or encoder.text_tower(run), encoder.autocast(run)
        if model.text_tower is not None or frozen is None:
            frozen = tokens.word_states(run, tower, captions, device, precision)
        return cls(run, fold, model, frozen, encoder)

    def words(self, captions: Sequence[str]) -> Sequences:
        """Words of some of the captions, one after the other."""
        return self.captions.of(captions)

    def tokens(self, store: FeatureStore, motion_idx: np.ndarray) -> Sequences:
        """Tokens of motions of a store."""
        motions = MotionTensors(store, self.run.config.motion, self.encoder.device)
        precision = self.encoder.autocast(self.run)
        return tokens.motion_tokens(self.run, self.model, motions, motion_idx, precision)


def rerank_runs(config: RerankConfig) -> list[Path]:
    """Writes the word scores of each run; logs what they gain out of fold. Returns the files."""
    data = dataset.load_training(config.data, config.machine.jobs)
    split = folds.read_folds(data, config.data.folds_dir)
    allowed = config.allow_towers
    runs = select_runs(config.runs, config.out_dir, data, split, allow_towers=allowed)
    encoder = Encoder(config.machine, config.data.work_dir, data.training.captions)
    return [rerank_run(run, data, split, encoder, config) for run in runs]


def rerank_run(
    run: Run, data: TrainingData, split: Folds, encoder: Encoder, config: RerankConfig
) -> Path:
    """Writes the word scores of one run, a fold at a time."""
    if not run.finished_folds():
        fix = "train one: python solution/train.py with --fold 0, or all folds"
        raise RunError(run.folder, "has no finished fold to train word scores on", fix)
    run = with_output_dir(run, config.data.work_dir)
    data = dataset.with_features(data, run.features, config.data, config.machine.jobs)
    test = None
    test_dir = config.test_dir or config.data.data_dir / "test"
    if reading.is_folder(test_dir):
        test = dataset.load_test(test_dir, run.features, config.data, config.machine.jobs)
    captions = [caption for of_motion in data.training.captions for caption in of_motion]
    captions += [caption for query in test.queries for caption in query.captions] if test else []
    words: CaptionWords | None = None
    out_of_fold: dict[int, np.ndarray] = {}
    of_test: list[list[np.ndarray]] = []
    for fold in run.finished_folds():
        fold_model = FoldModel.open(run, fold, encoder, captions, words)
        words = fold_model.captions
        matcher = fold_matcher(fold_model, data, split, config)
        held_out = held_out_scores(fold_model, matcher, data, split)
        scale = ZScore.of(held_out)
        out_of_fold[fold] = scale(held_out).astype(np.float16)
        if test is not None:
            of_test.append([scale(of_query) for of_query in test_scores(fold_model, matcher, test)])
    logger.info(describe_gain(run, out_of_fold, split))
    path = run.output_dir / FILE_NAME
    if test is not None:
        queries = [np.mean(of_query, axis=0) for of_query in zip(*of_test, strict=True)]
        external.save_member(path, test.queries, queries, out_of_fold, split.hash)
    return path


def fold_matcher(
    fold_model: FoldModel, data: TrainingData, split: Folds, config: RerankConfig
) -> TokenMatcher:
    """The matcher of a fold: trained on the motions its model was trained on, or read from the
    checkpoint of an earlier call."""
    run, fold, device = fold_model.run, fold_model.fold, fold_model.encoder.device
    path = run.output_dir / f"fold{fold}" / CHECKPOINT
    reading.check_output(path.parent, run.output_dir, RunError)
    held_out = oof.load_out_of_fold(run, fold)
    settings = [getattr(config, name) for name in config.MATCHER_SETTINGS]
    # embeddings change with the model, unlike the name and the size of its file
    arrays = (held_out.text, held_out.motion)
    embeddings = [hashlib.blake2b(array.tobytes()).hexdigest() for array in arrays]
    key = files.content_hash(settings, embeddings)
    matcher = _trained_before(path, key, config, device)
    if matcher is not None:
        return matcher
    train_idx = split.train_idx(fold)
    captions = [data.training.captions[index] for index in train_idx]
    words = fold_model.words([caption for of_motion in captions for caption in of_motion])
    training = MatcherData.of(words, fold_model.tokens(data.store, train_idx), captions)
    seed = checkpoints.fold_seed(run.config, fold)
    matcher = matcher_training.train_matcher(
        training, config, seed, device, f"{run.name} fold{fold}"
    )
    sizes = training.words.dim, training.tokens.dim
    content = {"key": key, "sizes": sizes, "matcher": matcher.state_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_checkpoint(path, content)
    return matcher


def _trained_before(
    path: Path, key: str, config: RerankConfig, device: torch.device
) -> TokenMatcher | None:
    """The matcher of a checkpoint with this key; None where there is none, with a warning where it
    is broken."""
    if not path.is_file():
        return None
    try:
        content = checkpoints.load_checkpoint(path, device)
        if content["key"] != key:
            return None
        sizes = tuple(content["sizes"])
        matcher = TokenMatcher(sizes, config.dim, config.hidden, config.dropout)
        matcher.load_state_dict(content["matcher"])
    except (WeightsError, KeyError, TypeError, ValueError, RuntimeError):
        logger.warning(f"warning: {path}: is no readable checkpoint: it is trained again")
        return None
    return matcher.to(device)


def held_out_scores(
    fold_model: FoldModel, matcher: TokenMatcher, data: TrainingData, split: Folds
) -> np.ndarray:
    """(C, M) scores of the captions and motions that a fold holds out."""
    val_idx = split.val_idx(fold_model.fold)
    captions = [caption for index in val_idx for caption in data.training.captions[index]]
    held_out = fold_model.tokens(data.store, val_idx)
    return matcher_training.score_pairs(matcher, fold_model.words(captions), held_out)


def test_scores(fold_model: FoldModel, matcher: TokenMatcher, test: TestData) -> list[np.ndarray]:
    """Scores of each query to its candidates, the mean over its captions.

    A candidate that cannot be used has a score below all others.
    """
    gallery = fold_model.tokens(test.store, np.arange(len(test.store.ids)))
    words = fold_model.words([caption for query in test.queries for caption in query.captions])
    ends = np.cumsum([len(query.captions) for query in test.queries])
    scores = []
    for query, end, candidate_idx in zip(test.queries, ends, test.candidate_idx, strict=True):
        usable = candidate_idx >= 0
        captions = words.select(torch.arange(end - len(query.captions), end))
        candidates = gallery.select(torch.from_numpy(candidate_idx[usable]))
        of_query = np.full(len(candidate_idx), LOWEST_SCORE)
        if usable.any():
            of_usable = matcher_training.score_pairs(matcher, captions, candidates)
            of_query[usable] = of_usable.mean(axis=0)
        scores.append(of_query)
    return scores


def describe_gain(run: Run, out_of_fold: dict[int, np.ndarray], split: Folds) -> str:
    """A line with the local scores of the run, of the word scores, and of the mean of both."""
    alone: list[GalleryRanks] = []
    words: list[GalleryRanks] = []
    both: list[GalleryRanks] = []
    for fold, scores in out_of_fold.items():
        held_out = oof.load_out_of_fold(run, fold)
        similarity = held_out.similarity(run.part_weight)
        mean = (1 - EQUAL_WEIGHT) * ZScore.of(similarity)(similarity) + EQUAL_WEIGHT * scores
        group = split.group[held_out.data_idx]
        for ranks, each in ((alone, similarity), (words, scores), (both, mean)):
            ranks.append(GalleryRanks.of(each, held_out.motion_idx, group))
    gain = _paired_gain(both, alone)
    means = (gallery_ranks.mean_score(ranks).mean for ranks in (alone, words, both))
    run_score, word_score, both_score = (f"{mean:.4f}" for mean in means)
    return (
        f"{run.name}: alone {run_score}, word by word {word_score}, mean of both {both_score} "
        f"({gain.mean:+.4f} +- {gain.error:.4f})"
    )


def _paired_gain(ranks: Sequence[GalleryRanks], others: Sequence[GalleryRanks]) -> Score:
    """Mean score of one ranking minus another's, motion by motion."""
    differences = gallery_ranks.motion_values(ranks) - gallery_ranks.motion_values(others)
    return metrics.cluster_robust_mean(differences, gallery_ranks.motion_groups(ranks))
