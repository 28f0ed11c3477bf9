"""A re-ranker with cross-attention on one fold of a run, against the run alone.

    python docs/experiments/cross_attention.py --run runs/NAME --inner runs/INNER --fold 0

Words of a caption attend to the tokens of both persons, both as the finished model of the fold sees
them, and give a correction of the model's similarity. The inner run is one of the same settings,
trained in folds on this fold's training motions alone: its out-of-fold similarities are the ones
corrected in training, since a model is too sure of motions that it has learned. `docs/ablation.md`
says how it is made, and what came out.

Prints the gain out of fold, where each motion is ranked among 127 others that are drawn at random,
and writes the submissions with and without, if there is a test folder.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "solution"))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config import cli
from motret.config.base import DataConfig, MachineConfig
from motret.data import captions as caption_text
from motret.data import dataset, folds
from motret.data.dataset import TestData, TrainingData
from motret.data.feature_store import FeatureStore
from motret.ensemble.inference import Encoder
from motret.evaluation import metrics
from motret.evaluation.gallery_ranks import GalleryRanks
from motret.evaluation.z_score import ZScore
from motret.formats import submission
from motret.models.token_matcher import Sequences
from motret.rerank.fold_model import FoldModel
from motret.rerank.tokens import CaptionWords
from motret.runs import oof
from motret.runs.run import Run, open_run
from motret.training import losses, optim

NEIGHBOURS = 64
"""Hard motions are drawn from so many that the run ranks highest for a caption."""
SEEDS, HARD = 2, 15
"""A group has so many captions' motions, and so many hard motions of each."""
GALLERY = 128
"""Motions among which a held-out motion is ranked: its own and random others."""
SHARED = 64
"""Held-out motions that are ranked in the same gallery."""
WEIGHTS = (0.5, 1.0, 2.0)
"""Weights of the correction that are tried out of fold; the test has weight 1."""


class CrossAttention(nn.Module):
    """Scores captions and motions: layers in which words attend to tokens, then a mean over words.

    sizes: of the vectors of words and tokens. The last layer starts at zero.
    """

    def __init__(self, sizes: tuple[int, int], width: int, layers: int, dropout: float):
        super().__init__()
        word_dim, token_dim = sizes
        self.word = nn.Sequential(
            nn.LayerNorm(word_dim), nn.Dropout(dropout), nn.Linear(word_dim, width)
        )
        self.token = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, width))
        self.person = nn.Parameter(torch.randn(2, width) * 0.02)
        self.word_weight = nn.Sequential(nn.LayerNorm(word_dim), nn.Linear(word_dim, 1))
        self.layers = nn.ModuleList(Layer(width, dropout) for _ in range(layers))
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, words: tuple[Tensor, Tensor], tokens: tuple[Tensor, Tensor, Tensor], swap: Tensor
    ) -> Tensor:
        """(C, M) corrections. words: `Sequences.flat` of C captions; tokens:
        `Sequences.padded_with_positions` of M motions, in which the first person has the first
        half; swap: (M,) whose persons change places."""
        states, caption_idx = words
        vectors, real, position = tokens
        second = (position >= 0.5) ^ swap[:, None]
        motion = self.token(vectors) + self.person[second.long()]
        word = self.word(states).expand(len(motion), -1, -1)
        for layer in self.layers:
            word = layer(word, motion, real)
        weight = self.word_weight(states)[:, 0].exp()
        captions = int(caption_idx[-1]) + 1
        mean = torch.zeros(captions, len(weight))
        mean[caption_idx, torch.arange(len(weight))] = weight
        mean = mean / mean.sum(dim=1, keepdim=True)
        scores: Tensor = self.head(mean @ word)[..., 0].T
        return scores


class Layer(nn.Module):
    """Words (M, V, width) attend to the tokens (M, K, width) of a motion each."""

    def __init__(self, width: int, dropout: float, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm_word, self.norm_token = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, word: Tensor, token: Tensor, real: Tensor) -> Tensor:
        query = self.query(self.norm_word(word)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key_value = self.key_value(self.norm_token(token)).unflatten(-1, (2, self.heads, -1))
        key, value = key_value.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, real[:, None, None])
        word = word + self.out(seen.transpose(1, 2).flatten(-2))
        result: Tensor = word + self.feed_forward(word)
        return result


@dataclass(frozen=True)
class Gallery:
    """Captions (C) and motions (M) of motions in order: words, tokens, the motion of each caption,
    captions that say the same by equal numbers, and the run's similarities (C, M), standardised."""

    words: Sequences
    tokens: Sequences
    motion_idx: Tensor
    text_idx: Tensor
    similarity: Tensor

    @classmethod
    def of(
        cls,
        model: FoldModel,
        words: CaptionWords,
        captions: Sequence[Sequence[str]],
        store: FeatureStore,
        motion_idx: np.ndarray,
        similarity: np.ndarray,
    ) -> "Gallery":
        """words: of all captions; captions: of each of these motions of a store."""
        flat = [caption for of_motion in captions for caption in of_motion]
        number: dict[str, int] = {}
        texts = [caption_text.normalize(caption) for caption in flat]
        text_idx = torch.tensor([number.setdefault(text, len(number)) for text in texts])
        counts = torch.tensor([len(of_motion) for of_motion in captions])
        return cls(
            words.of(flat),
            model.tokens(store, motion_idx),
            torch.arange(len(counts)).repeat_interleave(counts),
            text_idx,
            torch.from_numpy(similarity).float(),
        )

    def groups(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Captions and motions (G,) of groups, each pair of the same place: seeds in random order,
        and hard motions of each among those that the run ranks highest for it."""
        motions = len(self.tokens.lengths)
        counts = torch.bincount(self.motion_idx, minlength=motions)
        first = counts.cumsum(0) - counts

        def draw_captions(motion: Tensor) -> Tensor:
            draw = torch.rand(len(motion), generator=generator)
            return first[motion] + (draw * counts[motion]).long()

        for seeds in torch.randperm(motions, generator=generator).split(SEEDS):
            near = self.similarity[draw_captions(seeds)].topk(min(NEIGHBOURS, motions)).indices
            order = torch.rand(near.shape, generator=generator).argsort(dim=1)[:, :HARD]
            group = torch.cat([seeds, near.gather(1, order).flatten()]).unique()
            yield draw_captions(group), group


def fit_scale(similarity: Tensor, motion_idx: Tensor) -> float:
    """The scale under which similarities (C, M) are the best logits for each caption's motion."""
    scales = torch.arange(0.5, 12.0, 0.25)
    losses_at = [F.cross_entropy(scale * similarity, motion_idx).item() for scale in scales]
    return float(scales[int(np.argmin(losses_at))])


def train_reranker(
    galleries: list[Gallery], args: argparse.Namespace
) -> tuple[CrossAttention, float]:
    """The corrections of the similarities of inner folds, and the scale of these as logits.

    The loss of a group is the cross-entropy of a caption's own motion, and `kl` times the
    divergence from the run's own softmax.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    sizes = galleries[0].words.dim, galleries[0].tokens.dim
    model = CrossAttention(sizes, args.width, args.layers, args.dropout)
    scale = float(np.mean([fit_scale(each.similarity, each.motion_idx) for each in galleries]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)
    steps = args.epochs * sum(-(-len(each.tokens.lengths) // (SEEDS * 8)) for each in galleries)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: optim.warmup_cosine(step, steps, min(40, steps / 2))
    )
    start, step, total = time.monotonic(), 0, 0.0
    while step < steps:
        streams = [gallery.groups(generator) for gallery in galleries]
        for gallery, (caption_idx, group) in zip_streams(galleries, streams):
            loss = group_loss(model, gallery, caption_idx, group, scale, args, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step, total = step + 1, total + loss.item()
            if step % 50 == 0:
                seconds = time.monotonic() - start
                print(f"step {step} of {steps}: loss {total / 50:.4f}, {seconds:.0f} s", flush=True)
                total = 0.0
            if step == steps:
                break
    return model, scale


def zip_streams(
    galleries: list[Gallery], streams: list[Iterator[tuple[Tensor, Tensor]]]
) -> Iterator[tuple[Gallery, tuple[Tensor, Tensor]]]:
    """A group of each gallery in turn, until one has no more."""
    for groups in zip(*streams, strict=False):
        yield from zip(galleries, groups, strict=True)


def group_loss(
    model: CrossAttention,
    gallery: Gallery,
    caption_idx: Tensor,
    group: Tensor,
    scale: float,
    args: argparse.Namespace,
    generator: torch.Generator,
) -> Tensor:
    target = torch.arange(len(group))
    teacher = scale * gallery.similarity[caption_idx][:, group]
    swap = torch.rand(len(group), generator=generator) < 0.5
    tokens = gallery.tokens.padded_with_positions(group, args.token_drop, generator)
    logits = teacher + model(gallery.words.flat(caption_idx), tokens, swap)
    text_idx = gallery.text_idx[caption_idx]
    excluded = losses.has_equivalent_caption(text_idx[:, None] == text_idx, target, len(group))
    excluded[target, target] = False
    logits, teacher = (each.masked_fill(excluded, -1e4) for each in (logits, teacher))
    log_prob, goal = logits.log_softmax(dim=1), teacher.log_softmax(dim=1)
    divergence = F.kl_div(log_prob, goal, log_target=True, reduction="batchmean")
    return F.cross_entropy(logits, target) + args.kl * divergence


@torch.inference_mode()
def corrections(
    model: CrossAttention, gallery: Gallery, captions: Tensor, motions: Tensor
) -> np.ndarray:
    """(C, M) of some captions and motions."""
    model.eval()
    tokens, swap = (
        gallery.tokens.padded_with_positions(motions),
        torch.zeros(len(motions), dtype=torch.bool),
    )
    scores = [model(gallery.words.flat(part), tokens, swap) for part in captions.split(16)]
    return torch.cat(scores).numpy()


def shared_galleries(
    model: CrossAttention, gallery: Gallery, scale: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Of `SHARED` held-out motions at a time, among `GALLERY`: which captions (c,), the place of
    each one's own motion (c,), the run's logits and the corrections (c, GALLERY)."""
    rng = np.random.default_rng(0)
    motions, motion_idx = len(gallery.tokens.lengths), gallery.motion_idx.numpy()
    for asked in np.array_split(rng.permutation(motions), -(-motions // SHARED)):
        others = np.setdiff1d(np.arange(motions), asked)
        drawn = rng.choice(others, min(GALLERY - len(asked), len(others)), replace=False)
        among = np.sort(np.concatenate([asked, drawn]))
        captions = np.flatnonzero(np.isin(motion_idx, asked))
        logits = scale * gallery.similarity.numpy()[np.ix_(captions, among)]
        corrected = corrections(model, gallery, torch.from_numpy(captions), torch.from_numpy(among))
        yield captions, np.searchsorted(among, motion_idx[captions]), logits, corrected


def print_gain(model: CrossAttention, gallery: Gallery, scale: float, group: np.ndarray) -> None:
    """The local score of the run alone, and what corrections of some weights add.

    group: (M,) of the held-out motions, for the errors.
    """
    motion_idx = gallery.motion_idx.numpy()
    values = {weight: np.empty(len(motion_idx)) for weight in (0.0, *WEIGHTS)}
    for captions, own, logits, correction in shared_galleries(model, gallery, scale):
        for weight, of_captions in values.items():
            ranks = GalleryRanks.of(logits + weight * correction, own, np.zeros(logits.shape[1]))
            of_captions[captions] = ranks.caption_values()
    count = np.bincount(motion_idx)
    by_motion = {weight: np.bincount(motion_idx, each) / count for weight, each in values.items()}
    for weight, each in by_motion.items():
        score = metrics.cluster_robust_mean(each, group)
        gain = metrics.cluster_robust_mean(each - by_motion[0.0], group)
        print(
            f"out of fold, weight {weight:g}: {score.mean:.4f} +- {score.error:.4f} "
            f"({gain.mean:+.4f} +- {gain.error:.4f})"
        )


def write_test(
    model: CrossAttention,
    fold_model: FoldModel,
    words: CaptionWords,
    test: TestData,
    scale: float,
    spread: ZScore,
) -> None:
    """Two submissions, by the fold's model alone and corrected. spread: of its similarities."""
    captions = [caption for query in test.queries for caption in query.captions]
    encoder, run = fold_model.encoder, fold_model.run
    bank = encoder.caption_bank(run)
    text = encoder.embed_captions(fold_model.model, run, captions, bank)
    motion = encoder.embed_motions(fold_model.model, run, test.store)
    motion_idx, similarity = np.arange(len(motion)), spread(text @ motion.T)
    gallery = Gallery.of(fold_model, words, [captions], test.store, motion_idx, similarity)
    ends = np.cumsum([len(query.captions) for query in test.queries])
    alone: list[np.ndarray] = []
    corrected: list[np.ndarray] = []
    for query, end, candidates in zip(test.queries, ends, test.candidate_idx, strict=True):
        asked = torch.arange(end - len(query.captions), end)
        among = torch.from_numpy(candidates)
        correction = corrections(model, gallery, asked, among)
        logits = scale * gallery.similarity[asked][:, among].numpy()
        for scores, each in ((alone, logits), (corrected, logits + correction)):
            scores.append(np.where(candidates < 0, -np.inf, each.mean(axis=0)))
    for name, scores in (("alone", alone), ("corrected", corrected)):
        path = run.folder / f"{name}.csv"
        submission.write_submission(path, submission.rank_candidates(test.queries, scores))
        print(path)


def inner_galleries(
    inner: Run,
    fold_model: FoldModel,
    words: CaptionWords,
    data: TrainingData,
    train_idx: np.ndarray,
) -> list[Gallery]:
    """The held-out motions of each fold of the inner run, as the outer model reads them."""
    data_idx = {data.store.ids[index]: index for index in train_idx}
    galleries = []
    for fold in inner.finished_folds():
        held_out = oof.load_out_of_fold(inner, fold)
        motion_idx = np.array([data_idx[name] for name in held_out.ids.tolist()])
        captions = [data.training.captions[index] for index in motion_idx]
        similarity = held_out.similarity()
        standard = ZScore.of(similarity)(similarity)
        galleries.append(Gallery.of(fold_model, words, captions, data.store, motion_idx, standard))
    return galleries


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    config = DataConfig(data_dir=args.data_dir, work_dir=args.work_dir, folds_dir=args.folds_dir)
    data = dataset.load_training(config)
    split = folds.read_folds(data, config.folds_dir)
    test_dir, test = config.data_dir / "test", None
    captions = [*data.training.captions]
    if test_dir.is_dir():
        test = dataset.load_test(test_dir, data.store.config, config)
        captions += [query.captions for query in test.queries]
    run, inner = open_run(args.run), open_run(args.inner)
    encoder = Encoder(MachineConfig(), config.work_dir, captions)
    fold_model = FoldModel.open(run, args.fold, encoder)
    words = fold_model.words([caption for of_motion in captions for caption in of_motion])
    galleries = inner_galleries(inner, fold_model, words, data, split.train_idx(args.fold))
    model, scale = train_reranker(galleries, args)
    held_out = oof.load_out_of_fold(run, args.fold)
    similarity, val_idx = held_out.similarity(), held_out.data_idx
    spread = ZScore.of(similarity)
    of_motions = [data.training.captions[index] for index in val_idx]
    gallery = Gallery.of(fold_model, words, of_motions, data.store, val_idx, spread(similarity))
    print_gain(model, gallery, scale, split.group[val_idx])
    if test is not None:
        write_test(model, fold_model, words, test, scale, spread)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--inner", type=Path, required=True, help="folder of the inner run")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--work_dir", type=Path, default=Path("work"))
    parser.add_argument("--folds_dir", type=Path, default=Path("folds"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--token_drop", type=float, default=0.5)
    parser.add_argument("--kl", type=float, default=0.5, help="weight of the run's own softmax")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
