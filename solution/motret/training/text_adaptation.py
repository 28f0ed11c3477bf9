"""Adaptation of a text tower to the captions of a field: sentences about one motion come closer.

In-batch contrast of sentences (as SimCSE, Gao et al. 2021, has it for paraphrases): two sentences
that people wrote of one motion are positives, those of other motions negatives.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.scripts import AdaptConfig
from motret.data import captions as caption_text
from motret.data.sentence_pairs import join_sentences
from motret.errors import ConfigError
from motret.models.hf_tower import HfTower, make_hf_tower
from motret.training import losses, optim
from motret.utils import files, progress
from motret.utils.device import autocast, choose_device, training_dtype

logger = logging.getLogger(__name__)

CaptionSets = Sequence[Sequence[str]]

HELD_OUT_MOTIONS = 500
"""Motions, at most a tenth of all, whose captions are not trained on but measured on."""
MEASURE_BATCH_SIZE = 128
"""Captions that are embedded at a time where nothing is trained."""
WARMUP_FRACTION = 0.1
"""Fraction of the steps in which the learning rate rises."""
MARKER = "adaptation.json"
"""File that says from what, and how, a folder was made."""


@dataclass(frozen=True)
class SentenceRetrieval:
    """How often another sentence of the same motion is the first, and among the first ten, of those
    of `motions` motions."""

    motions: int
    recall_1: float
    recall_10: float

    def __str__(self) -> str:
        return f"R@1 {self.recall_1:.3f}, R@10 {self.recall_10:.3f}"


def adapt_text_tower(config: AdaptConfig, sets: CaptionSets) -> SentenceRetrieval:
    """Adapts the tower to caption sets and writes it as a Hugging Face folder, whole or not at all.

    sets: the captions of each motion, two at least. Returns what is measured on held-out motions.
    ConfigError for a tower that is not of Hugging Face, or for too few motions.
    """
    if not config.text_tower.startswith("hf:"):
        problem = f"{config.text_tower} is no Hugging Face encoder"
        raise ConfigError("--text_tower", problem, "give hf:<name or folder>")
    rng = np.random.default_rng(config.machine.seed)
    torch.manual_seed(config.machine.seed)
    train, held_out = split_held_out(sets, rng)
    if len(train) < 2 or not held_out:
        problem = f"only {len(sets)} motions with two captions"
        raise ConfigError("--captions", problem, "give captions of 20 motions or more")
    tower = make_hf_tower(config.text_tower.removeprefix("hf:"))
    tower.to(choose_device(config.machine.device))
    before = measure_retrieval(tower, held_out)
    logger.info(f"{config.text_tower}: {before} among {before.motions} held-out motions")
    train_tower(tower, train, config, rng)
    after = measure_retrieval(tower, held_out)
    logger.info(f"adapted in {config.steps} steps: {after}")
    facts = {
        "text_tower": config.text_tower,
        "motions": len(train),
        **{name: getattr(config, name) for name in ("steps", "batch_size", "lr", "tau", "join")},
        "before": vars(before),
        "after": vars(after),
    }
    with files.atomic_dir(config.out, MARKER) as folder:
        tower.encoder.cpu().save_pretrained(folder)
        tower.tokenizer.save_pretrained(folder)
        files.write_json(folder / MARKER, facts)
    return after


def split_held_out(sets: CaptionSets, rng: np.random.Generator) -> tuple[CaptionSets, CaptionSets]:
    """The caption sets to train on, and those to measure on."""
    shuffled = [sets[index] for index in rng.permutation(len(sets))]
    n_held_out = min(HELD_OUT_MOTIONS, len(sets) // 10)
    return shuffled[n_held_out:], shuffled[:n_held_out]


def train_tower(
    tower: HfTower, sets: CaptionSets, config: AdaptConfig, rng: np.random.Generator
) -> None:
    """Trains all weights of a tower in place, for --steps steps."""
    device = next(tower.parameters()).device
    optimizer = torch.optim.AdamW(tower.parameters(), lr=config.lr, weight_decay=0.01)
    warmup = WARMUP_FRACTION * config.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: optim.warmup_cosine(step, config.steps, warmup)
    )
    dtype = training_dtype(config.amp, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    tower.train()
    bar = progress.progress_bar(range(config.steps), desc="adapting", unit="step")
    for _ in bar:
        first, second = sample_positives(sets, config, rng)
        with autocast(device, dtype):
            embeddings = embed_sentences(tower, [*first, *second])
        loss = sentence_loss(embeddings, first, second, config.tau)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)


def sample_positives(
    sets: CaptionSets, config: AdaptConfig, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Two captions of each motion of a random batch; a fraction --join of them tell of this motion
    and of another one."""
    size = min(config.batch_size, len(sets))
    pairs = [_two_captions(sets[index], rng) for index in rng.choice(len(sets), size, False)]
    for position in np.flatnonzero(rng.random(size) < config.join):
        others = _two_captions(sets[int(rng.integers(len(sets)))], rng)
        joined = (join_sentences(*both, rng) for both in zip(pairs[position], others, strict=True))
        pairs[position] = (next(joined), next(joined))
    return [first for first, _ in pairs], [second for _, second in pairs]


def _two_captions(captions: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
    first, second = rng.choice(len(captions), 2, replace=False)
    return captions[first], captions[second]


def sentence_loss(
    embeddings: Tensor, first: Sequence[str], second: Sequence[str], tau: float
) -> Tensor:
    """InfoNCE of sentences, mean of both directions.

    embeddings: (2 N, d) unit vectors of the first and the second caption of N motions. Motions with
    a caption in common are no negatives of each other.
    """
    queries, keys = embeddings.chunk(2)
    captions = [set(map(caption_text.normalize, pair)) for pair in zip(first, second, strict=True)]
    same = torch.tensor([[bool(each & another) for another in captions] for each in captions])
    scale = torch.tensor(1 / tau, device=queries.device)
    motion_idx = torch.arange(len(queries), device=queries.device)
    return losses.multi_positive_info_nce(queries, keys, motion_idx, scale, same.to(queries.device))


def embed_sentences(tower: HfTower, sentences: Sequence[str]) -> Tensor:
    """(C, dim) unit vectors."""
    device = next(tower.parameters()).device
    ids, lengths = tower.tokenize(sentences)
    return F.normalize(tower(ids.to(device), lengths.to(device)).float(), dim=-1)


@torch.inference_mode()
def measure_retrieval(tower: HfTower, sets: CaptionSets) -> SentenceRetrieval:
    """How well the first caption of each motion finds the second among those of all motions."""
    tower.eval()

    def embed(position: int) -> Tensor:
        sentences = [captions[position] for captions in sets]
        starts = range(0, len(sentences), MEASURE_BATCH_SIZE)
        chunks = [sentences[start : start + MEASURE_BATCH_SIZE] for start in starts]
        return torch.cat([embed_sentences(tower, chunk) for chunk in chunks])

    similarity = embed(0) @ embed(1).T
    rank = (similarity > similarity.diagonal()[:, None]).sum(dim=1)
    recall_1, recall_10 = (float((rank < k).float().mean()) for k in (1, 10))
    return SentenceRetrieval(len(sets), recall_1, recall_10)
