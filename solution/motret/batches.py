"""Batches: distinct motions with all their captions, motions of like length computed together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motret.config import MotionSettings
from motret.motion import MotionBatch
from motret.store import Store
from motret.text import CaptionBank

PIECES = 2
"""A batch is computed in so many pieces of like length: less padding, and the negatives stay a fair draw."""
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Batch:
    """One step's motions, sorted by length: in pieces for the tower; captions (C,) as rows of the bank, owner (C,) motion of each."""

    rows: Tensor
    """(B,) which training motions they are."""
    pieces: tuple[MotionBatch, ...]
    captions: Tensor
    owner: Tensor

    def split(self, count: int) -> list["Batch"]:
        """The batch as `count` batches of some of its pieces each, in their order; fewer where there are fewer pieces."""
        each = -(-len(self.pieces) // count)
        groups = [self.pieces[at : at + each] for at in range(0, len(self.pieces), each)]
        found, start = [], 0
        for group in groups:
            end = start + sum(len(piece.lengths) for piece in group)
            mine = (self.owner >= start) & (self.owner < end)
            found.append(Batch(self.rows[start:end], group, self.captions[mine], self.owner[mine] - start))
            start = end
        return found


class Motions:
    """The motions of a store as tensors on the device that computes; everything is indexed, nothing is looped over."""

    def __init__(self, store: Store, settings: MotionSettings, device: torch.device):
        self.features = torch.from_numpy(store.features)
        if device.type != "cpu":
            self.features = self.features.to(device)
        self.offsets, self.lengths = torch.from_numpy(store.offsets).to(device), torch.from_numpy(store.lengths).to(device)
        self.settings, self.device, self.columns = settings, device, store.columns

    def gather(self, rows: Tensor, generator: torch.Generator | None = None) -> MotionBatch:
        """The motions in `rows`, float32, held at their last frame up to the longest; long ones shortened by `long_motions`."""
        whole, limit = self.lengths[rows], self.settings.max_frames
        lengths = whole.clamp(max=limit)
        steps = torch.arange(int(lengths.max()), device=self.device)
        if self.settings.long_motions == "subsample":  # the kept frames spread evenly from first to last
            pace = torch.where(whole > limit, (whole - 1) / (lengths - 1).clamp(min=1), 1.0)
            at = (steps * pace[:, None]).round().long()
        else:
            at = steps + ((whole - lengths) // 2 * (self.settings.long_motions == "crop"))[:, None]
        at = at.minimum((at[:, :1] + whole[:, None] - 1) if self.settings.long_motions == "subsample" else at[:, :1] + lengths[:, None] - 1)
        return MotionBatch(self.features[self.offsets[rows][:, None] + at].float(), lengths, generator)

    def statistics(self, rows: Tensor, every: int = 8) -> tuple[Tensor, Tensor]:
        """Mean and deviation (D,) over persons and every eighth frame of the motions in `rows`."""
        total = square = 0.0
        count = 0
        for part in rows.split(EVALUATION_BATCH):
            lengths = self.lengths[part]
            steps = torch.arange(0, int(lengths.max()), every, device=self.device)
            at = (self.offsets[part][:, None] + steps)[steps < lengths[:, None]]
            frames = self.features[at].double().flatten(0, 1)
            total, square, count = total + frames.sum(0), square + (frames**2).sum(0), count + len(frames)
        mean = total / count
        return mean.float(), (square / count - mean**2).clamp(min=0).sqrt().float()


class CaptionTable:
    """All captions of the training motions as rows of a bank: those of motion m are `rows[starts[m]:starts[m + 1]]`.

    one_each: a training step sees one caption of each motion, drawn anew, instead of all.
    """

    def __init__(self, captions: tuple[tuple[str, ...], ...], bank: CaptionBank, device: torch.device, one_each: bool = False):
        self.rows = bank.rows([caption for own in captions for caption in own]).to(device)
        self.counts = torch.tensor([len(own) for own in captions], device=device)
        self.starts = self.counts.cumsum(0) - self.counts
        self.one_each = one_each

    def of(self, motions: Tensor) -> tuple[Tensor, Tensor]:
        """Bank rows (C,) of the captions of some motions (B,), and the place (C,) of each one's motion among them."""
        counts = self.counts[motions]
        owner = torch.repeat_interleave(counts)
        within = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
        return self.rows[self.starts[motions][owner] + within], owner

    def positives(self, motions: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same of the captions that a training step sees."""
        if not self.one_each:
            return self.of(motions)
        counts = self.counts[motions]
        drawn = (torch.rand(len(motions), generator=noise, device=motions.device) * counts).long().minimum(counts - 1)
        return self.rows[self.starts[motions] + drawn], torch.arange(len(motions), device=motions.device)


def epoch(
    motions: Motions,
    table: CaptionTable,
    rows: np.ndarray,
    batch_size: int,
    order: np.random.Generator,
    noise: torch.Generator,
    pieces: int = PIECES,
) -> Iterator[Batch]:
    """The training motions in random batches of so many pieces, the rest of an uneven split left for another epoch."""
    shuffled = torch.from_numpy(order.permutation(rows)).to(motions.device)
    size = min(batch_size, len(rows))
    for start in range(0, len(rows) - size + 1, size):
        batch = shuffled[start : start + size]
        batch = batch[motions.lengths[batch].argsort(stable=True)]
        gathered = tuple(motions.gather(piece, noise) for piece in batch.tensor_split(min(pieces, len(batch))))
        yield Batch(batch, gathered, *table.positives(batch, noise))


def steps_per_epoch(motions: int, batch_size: int) -> int:
    """Number of batches `epoch` gives."""
    return motions // min(batch_size, motions)
