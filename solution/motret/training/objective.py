"""What is minimised: a weighted sum of named losses. `LOSS_TERMS` lists them; docs/add_loss_term.md
shows how to add one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from motret.config.training import TrainConfig
from motret.data import part_mixing
from motret.data.batching import Batch
from motret.data.feature_blocks import Columns
from motret.data.inputs import MotionBatch
from motret.models.dual_encoder import DualEncoder
from motret.training import losses
from motret.training.context import TrainContext
from motret.utils.device import to_device

SAMPLE_MOTIONS = 1000
"""Motions by which the fraction of excluded negatives is measured."""


# ---- embeddings of a batch


@dataclass(frozen=True, kw_only=True)
class MotionEmbeddings:
    """Unit vectors of B motions.

    motion: (B, d). Where parts are trained on, parts: (B, W, 5, d), by each of the tower's W part
    views. Where parts are mixed, mixed: (B, d) and mixed_parts: (B, W, 5, d) of motions with some
    parts of others, donor_idx: (B,) the motion that each has parts of, and replaced: (B, 5) which
    parts.
    """

    motion: Tensor
    parts: Tensor | None = None
    mixed: Tensor | None = None
    mixed_parts: Tensor | None = None
    donor_idx: Tensor | None = None
    replaced: Tensor | None = None

    @classmethod
    def concat(cls, chunks: Sequence[Self], sizes: Sequence[int] | None = None) -> Self:
        """The embeddings of a batch from its chunks; a field that a chunk lacks is None.

        sizes: motions of each chunk, where a process has embedded its share of them alone.
        """
        sizes = sizes or [len(chunk.motion) for chunk in chunks]
        starts = accumulate(sizes[:-1], initial=0)
        shifted = [chunk._shift_donors(start) for chunk, start in zip(chunks, starts, strict=True)]
        values: dict[str, Any] = {
            item.name: _concat([getattr(chunk, item.name) for chunk in shifted])
            for item in fields(cls)
        }
        return cls(**values)

    def _shift_donors(self, start: int) -> Self:
        return self if self.donor_idx is None else replace(self, donor_idx=self.donor_idx + start)

    def vectors(self) -> dict[str, Tensor]:
        """The fields that hold vectors: those that a loss has gradients of."""
        tensors = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: tensor
            for name, tensor in tensors.items()
            if tensor is not None and tensor.is_floating_point()
        }

    def replace_each(self, change: Callable[[str, Tensor], Tensor]) -> Self:
        """The same with each field that is there changed; `change` gets its name and its value."""
        values: dict[str, Any] = {
            item.name: change(item.name, value)
            for item in fields(self)
            if (value := getattr(self, item.name)) is not None
        }
        return replace(self, **values)


def _concat(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if len(present) == len(tensors) else None


@dataclass(frozen=True, kw_only=True)
class BatchEmbeddings(MotionEmbeddings):
    """Unit vectors of a batch of B motions with C captions.

    caption: (C, d). Where parts are trained on, part_text: (B, 5, d), any vector where a part has
    no text.
    """

    caption: Tensor
    part_text: Tensor | None = None


def embed_batch(
    model: DualEncoder, batch: Batch, context: TrainContext, config: TrainConfig
) -> BatchEmbeddings:
    """All embeddings that the losses of a batch need; where processes share it, those of this one's
    motions and captions."""
    selected = None if batch.shard is None else batch.captions_of(batch.shard)
    with context.autocast():
        caption = model.encode_captions(context.bank, batch.caption_idx, batch.generator, selected)
        text_idx = part_text_idx(batch, context)
        if text_idx is None:
            motion = torch.cat([model.encode_motions(bucket) for bucket in batch.buckets])
            return BatchEmbeddings(caption=caption, motion=motion)
        if batch.shard is not None:
            text_idx = text_idx[batch.rows_of(batch.shard)]
        part_text = model.encode_captions(context.bank, text_idx.clamp(min=0).flatten()).unflatten(
            0, text_idx.shape
        )
        sizes = [bucket.size for bucket in batch.buckets]
        mixes = config.parts.lambda_mix > 0 and min(sizes) > 1  # a donor is another motion
        buckets = [
            embed_bucket(model, bucket, context.motions.columns, mixes) for bucket in batch.buckets
        ]
    return BatchEmbeddings(
        caption=caption, part_text=part_text, **vars(MotionEmbeddings.concat(buckets, sizes))
    )


def embed_bucket(
    model: DualEncoder, bucket: MotionBatch, columns: Columns, mixes: bool
) -> MotionEmbeddings:
    """Embeddings of the motions of a bucket and of their parts, and with `mixes` of motions with
    parts of others."""
    motion, parts = model.encode_motions_and_parts(bucket)
    plain = MotionEmbeddings(motion=motion, parts=torch.stack(parts, dim=1))
    if not mixes:
        return plain
    mix = part_mixing.sample_part_mix(bucket, columns)
    mixed, mixed_parts = model.encode_motions_and_parts(mix.motions)
    return replace(
        plain,
        mixed=mixed,
        mixed_parts=torch.stack(mixed_parts, dim=1),
        donor_idx=mix.donor_idx,
        replaced=mix.replaced,
    )


def part_text_idx(batch: Batch, context: TrainContext) -> Tensor | None:
    """(B, 5) bank indices of the part texts of a batch, of mirrored motions the mirrored texts; -1
    where a part is undefined.

    They are on the CPU. None where no part texts are trained on.
    """
    if context.part_texts is None:
        return None
    plain = context.part_texts[batch.train_idx]
    if batch.mirrored is None or context.mirrored_part_texts is None:
        return plain
    return torch.where(batch.mirrored[:, None], context.mirrored_part_texts[batch.train_idx], plain)


# ---- the terms of the loss


@dataclass(frozen=True)
class LossInputs:
    """All that a loss term may use of a batch. logit_scale: 1 / tau."""

    embeddings: BatchEmbeddings
    logit_scale: Tensor
    batch: Batch
    context: TrainContext
    config: TrainConfig

    @cached_property
    def caption_idx(self) -> Tensor:
        """(C,) bank index of each caption, on the device."""
        return to_device(self.batch.caption_idx, self.context.device)

    @cached_property
    def motion_idx(self) -> Tensor:
        """(C,) motion of each caption, counted in the batch, on the device."""
        return to_device(self.batch.motion_idx, self.context.device)

    @cached_property
    def mean_caption(self) -> Tensor:
        """(B, d) mean of each motion's caption embeddings, as unit vectors."""
        embeddings = self.embeddings
        return losses.mean_by_motion(embeddings.caption, self.motion_idx, len(embeddings.motion))

    @cached_property
    def excluded(self) -> Tensor | None:
        """(C, B) pairs of a caption and another motion that are no negatives, as a caption of that
        motion says the same; None where --negative_threshold is 0."""
        indices, count = (self.caption_idx, self.motion_idx), len(self.embeddings.motion)
        return excluded_pairs(*indices, count, self.context, self.config)

    @cached_property
    def part_defined(self) -> Tensor:
        """(B, 5) which parts have a text; on the CPU."""
        text_idx = part_text_idx(self.batch, self.context)
        assert text_idx is not None, "no part texts are trained on"
        return text_idx >= 0


def global_loss(inputs: LossInputs) -> Tensor:
    """L_global, the contrast of motions and captions."""
    caption, indices = mix_captions(inputs), (inputs.caption_idx, inputs.motion_idx)
    return contrastive_loss(
        inputs.embeddings.motion,
        caption,
        inputs.logit_scale,
        *indices,
        inputs.context,
        inputs.config,
    )


def part_loss(inputs: LossInputs) -> Tensor | None:
    """L_part, the soft contrast of parts and part texts."""
    parts, part_text = inputs.embeddings.parts, inputs.embeddings.part_text
    if parts is None or part_text is None:
        return None
    return part_contrast_loss(parts, part_text, inputs.part_defined, inputs.config)


def direction_loss(inputs: LossInputs) -> Tensor | None:
    """L_direction: parts lie to the whole as their texts do."""
    motion, parts, part_text = (
        inputs.embeddings.motion,
        inputs.embeddings.parts,
        inputs.embeddings.part_text,
    )
    if parts is None or part_text is None:
        return None
    return part_direction_term(motion, inputs.mean_caption, parts, part_text, inputs.part_defined)


def mix_loss(inputs: LossInputs) -> Tensor | None:
    """L_global_mix + lambda_part * L_part_mix of mixed motions; a batch with nothing to mix has
    none."""
    if inputs.embeddings.mixed is None:
        return None
    return mixture_loss(
        inputs.embeddings,
        inputs.logit_scale,
        inputs.mean_caption,
        inputs.part_defined,
        inputs.config,
    )


@dataclass(frozen=True)
class LossSpec:
    """One loss of the table.

    name: its column in metrics.csv is loss_<name>; weight: its factor in the sum, None where the
    settings leave it out; compute: its value for a batch, None where the batch has nothing to
    compute it of.
    """

    name: str
    weight: Callable[[TrainConfig], float | None]
    compute: Callable[[LossInputs], Tensor | None]


LOSS_TERMS: tuple[LossSpec, ...] = (
    LossSpec("global", lambda _: 1.0, global_loss),
    LossSpec("part", lambda config: config.parts.lambda_part, part_loss),
    LossSpec("direction", lambda config: config.parts.lambda_direction or None, direction_loss),
    LossSpec("mix", lambda config: config.parts.lambda_mix or None, mix_loss),
)
"""The losses, summed in this order."""


@dataclass(frozen=True)
class LossTerm:
    """A loss of a batch: its name, its value () and its weight in the sum."""

    name: str
    value: Tensor
    weight: float

    def weighted(self) -> Tensor:
        return self.value if self.weight == 1 else self.weight * self.value


@dataclass(frozen=True)
class BatchLoss:
    """What is minimised for a batch: total () is the weighted sum of the terms."""

    total: Tensor
    terms: tuple[LossTerm, ...]

    def detach(self) -> "BatchLoss":
        """The same without a graph; still on the device."""
        return BatchLoss(
            self.total.detach(),
            tuple(replace(term, value=term.value.detach()) for term in self.terms),
        )


def batch_loss(
    model: DualEncoder, batch: Batch, context: TrainContext, config: TrainConfig
) -> BatchLoss:
    """The loss of a training batch, with its graph."""
    return total_loss(
        embed_batch(model, batch, context, config), model.logit_scale(), batch, context, config
    )


def total_loss(
    embeddings: BatchEmbeddings,
    logit_scale: Tensor,
    batch: Batch,
    context: TrainContext,
    config: TrainConfig,
) -> BatchLoss:
    """The loss of a batch from its embeddings, term by term.

    L_global + lambda_part * L_part + lambda_direction * L_direction + lambda_mix * (L_global_mix +
    lambda_part * L_part_mix); without part texts L_global alone.
    """
    inputs = LossInputs(embeddings, logit_scale, batch, context, config)
    terms: list[LossTerm] = []
    for spec in LOSS_TERMS:
        weight = spec.weight(config)
        value = None if weight is None else spec.compute(inputs)
        if weight is not None and value is not None:
            terms.append(LossTerm(spec.name, value, weight))
    total = terms[0].weighted()
    for term in terms[1:]:
        total = total + term.weighted()
    return BatchLoss(total, tuple(terms))


class LossMeans:
    """Means over the steps of an epoch. They are summed on the device, which is read once, at the
    end."""

    def __init__(self, device: torch.device):
        self.steps, self.total = 0, torch.zeros((), device=device)
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, loss: BatchLoss) -> None:
        """Adds the detached loss of a step."""
        self.steps += 1
        self.total += loss.total
        for term in loss.terms:
            value, count = self.sums.get(term.name, (torch.zeros_like(self.total), 0))
            self.sums[term.name] = value + term.value, count + 1

    def mean_total(self) -> float:
        """Mean of the weighted sum."""
        return float(self.total) / self.steps

    def mean_terms(self) -> dict[str, float]:
        """Mean of each term, not weighted, over the steps that had it."""
        return {name: float(value) / count for name, (value, count) in self.sums.items()}


# ---- the losses of an objective, from embeddings


def mix_captions(inputs: LossInputs) -> Tensor:
    """Captions (C, d), some of them (--caption_mix) replaced by the mean of all captions of their
    motion, as unit vectors."""
    caption, fraction = inputs.embeddings.caption, inputs.config.augment.caption_mix
    if not fraction:
        return caption
    noise = torch.rand(len(caption), generator=inputs.batch.generator, device=caption.device)
    mean = inputs.mean_caption.index_select(0, inputs.motion_idx)
    return torch.where((noise < fraction)[:, None], mean, caption)


def part_contrast_loss(
    parts: Tensor, part_text: Tensor, defined: Tensor, config: TrainConfig
) -> Tensor:
    """L_part, the mean over part views.

    parts: (B, W, 5, d); part_text: (B, 5, d); defined: (B, 5), on the CPU.
    """
    settings = config.loss.tau, config.parts.tau_prime, config.parts.part_reduce
    per_view = [
        losses.soft_part_contrast(view, part_text, defined, *settings) for view in parts.unbind(1)
    ]
    return torch.stack(per_view).mean()


def part_direction_term(
    motion: Tensor, text: Tensor, parts: Tensor, part_text: Tensor, defined: Tensor
) -> Tensor:
    """L_direction, the mean over part views. motion, text: (B, d); the rest as in
    `part_contrast_loss`."""
    per_view = [
        losses.part_direction_loss(motion, text, view, part_text, defined)
        for view in parts.unbind(1)
    ]
    return torch.stack(per_view).mean()


def mixture_loss(
    embeddings: BatchEmbeddings,
    logit_scale: Tensor,
    text: Tensor,
    defined: Tensor,
    config: TrainConfig,
) -> Tensor:
    """L_global_mix + lambda_part * L_part_mix of motions with parts of others, and texts mixed
    alike.

    text: (B, d) mean of each motion's captions; defined: (B, 5) of the batch before mixing.
    """
    mixed, mixed_parts, part_text = embeddings.mixed, embeddings.mixed_parts, embeddings.part_text
    donor_idx, replaced = embeddings.donor_idx, embeddings.replaced
    assert (
        mixed is not None
        and mixed_parts is not None
        and part_text is not None
        and donor_idx is not None
        and replaced is not None
    )
    weight = replaced.float().mean(dim=1, keepdim=True)
    target = F.normalize(weight * text.index_select(0, donor_idx) + (1 - weight) * text, dim=-1)
    part_target = torch.where(replaced[..., None], part_text.index_select(0, donor_idx), part_text)
    replaced_on_cpu = replaced.cpu()  # this term waits for the device: the mix is drawn there
    part_defined = torch.where(replaced_on_cpu, defined[donor_idx.cpu()], defined)
    motion_idx = torch.arange(len(text), device=text.device)
    whole = losses.multi_positive_info_nce(target, mixed, motion_idx, logit_scale)
    return whole + config.parts.lambda_part * part_contrast_loss(
        mixed_parts, part_target, part_defined, config
    )


def excluded_pairs(
    caption_idx: Tensor, motion_idx: Tensor, count: int, context: TrainContext, config: TrainConfig
) -> Tensor | None:
    """(C, B) the false negatives of C captions and `count` motions; None where all count."""
    if config.loss.negative_threshold <= 0:
        return None
    return false_negative_mask(caption_idx, motion_idx, count, context, config)


def contrastive_loss(
    motion: Tensor,
    caption: Tensor,
    logit_scale: Tensor,
    caption_idx: Tensor,
    motion_idx: Tensor,
    context: TrainContext,
    config: TrainConfig,
) -> Tensor:
    """The contrast of motions (B, d) and captions (C, d), without the false negatives.

    logit_scale: 1 / tau; caption_idx: (C,) bank indices of the captions; motion_idx: (C,) motion of
    each. All are on the device.
    """
    excluded = excluded_pairs(caption_idx, motion_idx, len(motion), context, config)
    return losses.multi_positive_info_nce(
        caption, motion, motion_idx, logit_scale, excluded, config.loss.label_smoothing
    )


# ---- false negatives


def false_negative_mask(
    caption_idx: Tensor,
    motion_idx: Tensor,
    n_motions: int,
    context: TrainContext,
    config: TrainConfig,
) -> Tensor:
    """(C, B) pairs of the captions `caption_idx` (C,) and motions that are no fair negatives.

    A motion has a caption that says the same, or nearly the same: a cosine of at least
    --negative_threshold after the captions' mean is taken off. Captions that differ by a mirrored
    side ("waves the left hand", "waves the right hand") are not the same.
    """
    equal = losses.has_equivalent_caption(
        caption_idx[:, None] == caption_idx, motion_idx, n_motions
    )
    if (
        context.centred_captions is None
        or context.caption_sides is None
        or config.loss.negative_threshold > 1
    ):
        return equal
    vectors, sides = context.centred_captions[caption_idx], context.caption_sides[caption_idx]
    close = vectors @ vectors.T >= config.loss.negative_threshold
    mirrored = close & (sides[:, :1] == sides[:, 1])
    has_close = losses.has_equivalent_caption(close, motion_idx, n_motions)
    return equal | (has_close & ~losses.has_equivalent_caption(mirrored, motion_idx, n_motions))


def excluded_negative_fraction(context: TrainContext, config: TrainConfig) -> float:
    """Fraction of the pairs of a caption and another motion that are no negatives, among at most
    `SAMPLE_MOTIONS` motions."""
    count = len(context.table.counts)
    sample = torch.linspace(0, count - 1, min(count, SAMPLE_MOTIONS)).round().long()
    caption_idx, motion_idx = (
        indices.to(context.device) for indices in context.table.captions_of(sample)
    )
    negatives = motion_idx[:, None] != torch.arange(len(sample), device=context.device)
    if config.loss.negative_threshold <= 0 or not bool(negatives.any()):
        return 0.0
    return float(
        false_negative_mask(caption_idx, motion_idx, len(sample), context, config)[negatives]
        .float()
        .mean()
    )
