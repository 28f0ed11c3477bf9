"""Captions scored word by word: training of a token matcher on the frozen words and tokens of one
fold's model, and scoring with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from motret.config.scripts import ScorerSettings
from motret.data import captions as caption_text
from motret.models.token_matcher import Sequences, TokenMatcher
from motret.rerank.fold_model import TrainingTokens
from motret.rerank.tokens import CaptionWords
from motret.training import losses, optim
from motret.utils import progress
from motret.utils.device import to_device

WARMUP_STEPS = 40
"""Steps in which the learning rate rises; at most half of all."""
CAPTION_CHUNK, MOTION_CHUNK = 128, 128
"""Captions and motions that are scored at a time."""


@dataclass(frozen=True)
class MatcherData:
    """Captions (C) and motions (M): words, tokens, the motion of each caption (C,), and captions
    that say the same (C,) by equal numbers."""

    words: Sequences
    tokens: Sequences
    motion_idx: Tensor
    text_idx: Tensor

    @classmethod
    def of(
        cls, words: Sequences, tokens: Sequences, captions: Sequence[Sequence[str]]
    ) -> "MatcherData":
        """captions: of each motion; words: of all of these in order."""
        counts = torch.tensor([len(of_motion) for of_motion in captions])
        texts = [caption_text.normalize(text) for of_motion in captions for text in of_motion]
        index = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        text_idx = torch.tensor([index[text] for text in texts])
        return cls(words, tokens, torch.repeat_interleave(counts), text_idx)


def train_matcher(
    data: MatcherData, config: ScorerSettings, seed: int, device: torch.device, name: str
) -> TokenMatcher:
    """A matcher trained by the contrast of captions and motions in random batches.

    name: on the progress bar.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    sizes = data.words.dim, data.tokens.dim
    matcher = TokenMatcher(sizes, config.dim, config.hidden, config.dropout).to(device)
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=config.lr, weight_decay=0.05, fused=True)
    motions = len(data.tokens.lengths)
    batch_size = min(config.batch_size, motions)
    steps = config.epochs * (motions // batch_size)
    warmup = min(WARMUP_STEPS, steps / 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: optim.warmup_cosine(step, steps, warmup)
    )
    bar = progress.progress_bar(total=steps, desc=f"{name} words", unit="step")
    matcher.train()
    for _ in range(config.epochs):
        order = torch.randperm(motions, generator=generator)
        for batch in order.split(batch_size):
            if len(batch) < batch_size:
                continue
            loss = matching_loss(matcher, data, batch, config.token_drop, generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
    bar.close()
    return matcher


def matching_loss(
    matcher: TokenMatcher,
    data: MatcherData,
    batch: Tensor,
    token_drop: float,
    generator: torch.Generator,
) -> Tensor:
    """InfoNCE of the captions of a batch of motions (B,), with a motion's captions all positives
    and captions that say the same no negatives."""
    device = matcher.log_scale.device
    position = torch.full((len(data.tokens.lengths),), -1)
    position[batch] = torch.arange(len(batch))
    caption_idx = (position[data.motion_idx] >= 0).nonzero()[:, 0]
    motion_idx = position[data.motion_idx[caption_idx]]
    text_idx = data.text_idx[caption_idx]
    same = text_idx[:, None] == text_idx
    excluded = losses.has_equivalent_caption(same, motion_idx, len(batch))
    scores = matcher(data.words.flat(caption_idx), data.tokens.padded(batch, token_drop, generator))
    identity = torch.eye(len(batch), device=device)
    indices, masked = to_device(motion_idx, device), to_device(excluded, device)
    return losses.multi_positive_info_nce(scores, identity, indices, matcher.logit_scale(), masked)


@torch.inference_mode()
def score_pairs(matcher: TokenMatcher, words: Sequences, tokens: Sequences) -> np.ndarray:
    """(C, M) scores of all captions and motions, float32."""
    matcher.eval()
    captions, motions = torch.arange(len(words.lengths)), torch.arange(len(tokens.lengths))
    scores = np.empty((len(captions), len(motions)), dtype=np.float32)
    by_length = tokens.lengths.argsort(stable=True)
    padded = [(batch, tokens.padded(batch)) for batch in by_length.split(MOTION_CHUNK)]
    for chunk in captions.split(CAPTION_CHUNK):
        of_words = words.flat(chunk)
        for batch, vectors in padded:
            scores[np.ix_(chunk.numpy(), batch.numpy())] = matcher(of_words, vectors).cpu().numpy()
    return scores


@dataclass(frozen=True, eq=False)
class WordScorer:
    """Scores captions by a trained matcher. words: of all captions that are scored."""

    matcher: TokenMatcher
    words: CaptionWords

    @classmethod
    def train(cls, training: TrainingTokens, config: ScorerSettings, seed: int) -> Self:
        """From the training motions of a fold."""
        assert training.words is not None
        words = training.words.of(training.flat)
        data = MatcherData.of(words, training.tokens, training.captions)
        matcher = train_matcher(data, config, seed, training.device, training.name)
        return cls(matcher, training.words)

    @classmethod
    def from_content(
        cls,
        content: dict[str, Any],
        config: ScorerSettings,
        device: torch.device,
        words: CaptionWords,
    ) -> Self:
        """As `content` gave it. KeyError, TypeError, ValueError or RuntimeError where it is
        broken."""
        sizes = tuple(content["sizes"])
        matcher = TokenMatcher(sizes, config.dim, config.hidden, config.dropout)
        matcher.load_state_dict(content["matcher"])
        return cls(matcher.to(device), words)

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"sizes": self.matcher.sizes, "matcher": self.matcher.state_dict()}

    def score(self, captions: Sequence[str], tokens: Sequences) -> np.ndarray:
        """(C, M) scores from -1 to 1."""
        return score_pairs(self.matcher, self.words.of(captions), tokens)
