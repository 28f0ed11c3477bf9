"""Captions scored by their likelihood given a motion: training of a caption model on the motion
tokens of one fold's model, and scoring with it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motret.config.scripts import ScorerSettings
from motret.data import captions as caption_text
from motret.models.caption_model import END, PAD, START, UNKNOWN, CaptionModel, CaptionModelSize
from motret.models.token_matcher import Sequences
from motret.rerank.fold_model import TrainingTokens
from motret.training import optim
from motret.utils import progress
from motret.utils.device import to_device

MIN_COUNT = 2
"""A rarer word of the training captions is unknown."""
MAX_WORDS = 80
"""Words that are read of a caption at most."""
TEXT_LAYERS, LAYERS = 2, 2
"""Layers that read words, and layers in which words look at the motion."""
WARMUP_STEPS = 100
"""Steps in which the learning rate rises; at most half of all."""
MAX_GRAD_NORM = 1.0
CAPTION_CHUNK, MOTION_CHUNK = 8, 16
"""Captions and motions that are scored at a time: few numbers, which stay in the cache."""


@dataclass(frozen=True)
class Vocabulary:
    """The words that a caption model knows, in the order of their numbers after `UNKNOWN`."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, captions: Sequence[str]) -> Self:
        """The words that some different captions share."""
        words = (caption_text.words(caption) for caption in set(captions))
        counts = Counter(word for of_caption in words for word in of_caption)
        return cls(tuple(sorted(word for word, count in counts.items() if count >= MIN_COUNT)))

    @cached_property
    def number(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, UNKNOWN + 1)}

    @property
    def size(self) -> int:
        return UNKNOWN + 1 + len(self.words)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """(C, L) numbers of the words of captions, from `START` to `END`, then `PAD`."""
        rows = [
            [START, *(self.number.get(word, UNKNOWN) for word in words[:MAX_WORDS]), END]
            for words in map(caption_text.words, captions)
        ]
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


@dataclass(frozen=True)
class CaptionData:
    """Captions (C) of motions (M): numbers of their words (C, L), motion of each (C,), tokens."""

    word_idx: Tensor
    motion_idx: Tensor
    tokens: Sequences

    def batch(self, caption_idx: Tensor) -> Tensor:
        """(B, l) numbers of the words of some captions, as long as the longest of them."""
        word_idx = self.word_idx[caption_idx]
        return word_idx[:, : int((word_idx != PAD).sum(dim=1).max())]


def make_model(vocabulary: Vocabulary, token_dim: int, config: ScorerSettings) -> CaptionModel:
    size = CaptionModelSize(vocabulary.size, token_dim, MAX_WORDS + 2, config.dim)
    return CaptionModel(size, config.dropout, TEXT_LAYERS, LAYERS)


def train_caption_model(
    model: CaptionModel, data: CaptionData, config: ScorerSettings, seed: int, name: str
) -> None:
    """Trains by the cross-entropy of each word. name: on the progress bar."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.05, fused=True)
    captions = len(data.motion_idx)
    batch_size = min(config.batch_size, captions)
    steps = config.epochs * (captions // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: optim.warmup_cosine(step, steps, min(WARMUP_STEPS, steps / 2))
    )
    bar = progress.progress_bar(total=steps, desc=f"{name} likelihood", unit="step")
    model.train()
    for _ in range(config.epochs):
        order = torch.randperm(captions, generator=generator)
        for batch in order.split(batch_size):
            if len(batch) < batch_size:
                continue
            loss = word_loss(model, data, batch, config.token_drop, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            schedule.step()
            bar.update()
    bar.close()


def word_loss(
    model: CaptionModel,
    data: CaptionData,
    caption_idx: Tensor,
    token_drop: float,
    generator: torch.Generator,
) -> Tensor:
    """Mean cross-entropy () of the words of some captions (B,), given the words before and the
    motion. Some of its tokens are left out, and its persons are in random order."""
    device = model.person.device
    word_idx = to_device(data.batch(caption_idx), device)
    motion_idx = data.motion_idx[caption_idx]
    tokens = data.tokens.padded_with_positions(motion_idx, token_drop, generator)
    swap = torch.rand(len(caption_idx), generator=generator) < 0.5
    logits = model(model.read_words(word_idx[:, :-1]), model.read_motions(tokens, swap))
    return F.cross_entropy(logits.flatten(0, 1), word_idx[:, 1:].flatten(), ignore_index=PAD)


@torch.inference_mode()
def log_likelihood(model: CaptionModel, word_idx: Tensor, tokens: Sequences) -> np.ndarray:
    """(C, M) log-likelihood of captions (C, L) given motions, float32.

    Words that the model does not know count nothing.
    """
    model.eval()
    motions = []
    for batch in tokens.lengths.argsort(stable=True).split(MOTION_CHUNK):
        as_given = torch.zeros(len(batch), dtype=torch.bool)
        motions.append((batch, model.read_motions(tokens.padded_with_positions(batch), as_given)))
    scores = np.empty((len(word_idx), len(tokens.lengths)), dtype=np.float32)
    for chunk in torch.arange(len(word_idx)).split(CAPTION_CHUNK):
        chunk_words = to_device(word_idx[chunk], model.person.device)
        target = chunk_words[:, 1:]
        real = (target != PAD) & (target != UNKNOWN)
        states, target = model.read_words(chunk_words[:, :-1])[real], target[real]
        caption_idx = real.nonzero()[:, 0]
        for batch, of_motions in motions:
            logits = model(states.expand(len(batch), -1, -1), of_motions).float()
            picked = logits.gather(2, target.expand(len(batch), -1)[..., None])[..., 0]
            log_prob = picked - logits.logsumexp(dim=2)
            total = log_prob.new_zeros(len(batch), len(chunk)).index_add(1, caption_idx, log_prob)
            scores[np.ix_(chunk.numpy(), batch.numpy())] = total.T.cpu().numpy()
    return scores


@dataclass(frozen=True, eq=False)
class LikelihoodScorer:
    """Scores captions by a trained caption model."""

    model: CaptionModel
    vocabulary: Vocabulary

    @classmethod
    def train(cls, training: TrainingTokens, config: ScorerSettings, seed: int) -> Self:
        """From the training motions of a fold."""
        vocabulary = Vocabulary.of(training.flat)
        counts = torch.tensor([len(of_motion) for of_motion in training.captions])
        motion_idx = torch.arange(len(counts)).repeat_interleave(counts)
        data = CaptionData(vocabulary.encode(training.flat), motion_idx, training.tokens)
        torch.manual_seed(seed)
        model = make_model(vocabulary, data.tokens.dim, config).to(training.device)
        train_caption_model(model, data, config, seed, training.name)
        return cls(model, vocabulary)

    @classmethod
    def from_content(
        cls, content: dict[str, Any], config: ScorerSettings, device: torch.device
    ) -> Self:
        """As `content` gave it. KeyError, TypeError, ValueError or RuntimeError where it is
        broken."""
        vocabulary = Vocabulary(tuple(map(str, content["vocabulary"])))
        model = make_model(vocabulary, int(content["token_dim"]), config)
        model.load_state_dict(content["model"])
        return cls(model.to(device), vocabulary)

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "vocabulary": list(self.vocabulary.words),
            "token_dim": self.model.size.token_dim,
            "model": self.model.state_dict(),
        }

    def score(self, captions: Sequence[str], tokens: Sequences) -> np.ndarray:
        """(C, M) log-likelihood of captions given the tokens of motions, less each caption's
        mean."""
        scores = log_likelihood(self.model, self.vocabulary.encode(captions), tokens)
        return scores - scores.mean(axis=1, keepdims=True)
