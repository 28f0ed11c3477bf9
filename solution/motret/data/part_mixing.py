"""Part mixing: new motions from those of a batch, some parts of one on the body of another."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from motret.data.feature_blocks import BLOCKS, Columns, FeatureBlock
from motret.data.inputs import MotionBatch
from motret.skeleton import PARTS, Skeleton
from motret.utils.device import to_device

MIN_PARTS, MAX_PARTS = 2, 3
"""Parts that a host takes from its donor."""
PRIORITY = ("torso", "right_leg", "left_leg", "right_arm", "left_arm")
"""The parts, each after the one that it hangs on."""


@dataclass(frozen=True)
class PartMix:
    """Mixed motions; donor_idx: (B,) the motion of the batch that gave parts; replaced: (B, 5)
    which parts it gave."""

    motions: MotionBatch
    donor_idx: Tensor
    replaced: Tensor


def sample_part_mix(batch: MotionBatch, columns: Columns) -> PartMix:
    """Gives each motion 2 or 3 parts of another motion of the batch, drawn from the batch's
    generator.

    Where processes share the batch, all of it is mixed, and the rows of this one are returned.
    """
    if batch.whole is not None and batch.shard is not None:
        mix, rows = sample_part_mix(batch.whole, columns), batch.shard.rows(batch.size)
        motions = replace(mix.motions.take(batch.shard), whole=None)
        return PartMix(motions, mix.donor_idx[rows], mix.replaced[rows])
    size, device = len(batch.lengths), batch.lengths.device
    shift = torch.randint(1, size, (1,), generator=batch.generator, device=device)
    order = torch.randperm(size, generator=batch.generator, device=device)
    donor_idx = torch.empty_like(order)
    donor_idx[order] = order[(torch.arange(size, device=device) - shift) % size]  # no fixed points
    count = torch.randint(
        MIN_PARTS, MAX_PARTS + 1, (size, 1), generator=batch.generator, device=device
    )
    noise = torch.rand(size, len(PARTS), generator=batch.generator, device=device)
    replaced = noise.argsort(dim=1).argsort(dim=1) < count
    frames = mix_parts(batch.frames, batch.lengths, donor_idx, replaced, columns)
    return PartMix(batch.with_frames(frames), donor_idx, replaced)


def mix_parts(
    frames: Tensor, lengths: Tensor, donor_idx: Tensor, replaced: Tensor, columns: Columns
) -> Tensor:
    """Features (B, T, persons, D) with the parts in `replaced` (B, 5) taken from the motions
    `donor_idx` (B,), person by person.

    A part comes over in the person's own heading frame, resampled in time to the host's length, its
    rates scaled alike, and hangs on the joint it is attached to; the pelvis path stays the host's.
    Each block follows its rule in the table of blocks.
    """
    donor, speed = _resample_to_host(frames, lengths, donor_idx)
    mixed = frames.clone()
    for name, block_columns in columns.items():
        block = BLOCKS[name]
        if block.mix != "keep":
            rule = _attach_parts if block.mix == "attach" else _copy_parts
            host_values, donor_values = frames[..., block_columns], donor[..., block_columns]
            mixed[..., block_columns] = rule(
                host_values, donor_values, speed, replaced, block, columns.body
            )
        if block.recompute is not None:
            mixed[..., block_columns] = block.recompute(mixed, columns)
    return mixed


def _attach_parts(
    host: Tensor,
    donor: Tensor,
    speed: Tensor,
    replaced: Tensor,
    block: FeatureBlock,
    body: Skeleton,
) -> Tensor:
    """A block of points, those of each replaced part at the donor's distances from the joint that
    the part hangs on."""
    host, donor = (values.unflatten(-1, (len(body.joints), 3)) for values in (host, donor))
    mixed = host.clone()
    for part in PRIORITY:
        root = body.root(part)
        joints = [joint for joint in body.limbs[part] if joint != root]
        offset = donor[..., joints, :] - donor[..., [root], :]
        if block.rates is not None:
            offset = offset * speed[..., None]
        is_replaced = replaced[:, list(PARTS).index(part), None, None, None, None]
        offset = torch.where(is_replaced, offset, host[..., joints, :] - host[..., [root], :])
        mixed[..., joints, :] = mixed[..., [root], :] + offset
    return mixed.flatten(-2)


def _copy_parts(
    host: Tensor,
    donor: Tensor,
    speed: Tensor,
    replaced: Tensor,
    block: FeatureBlock,
    body: Skeleton,
) -> Tensor:
    """A block of values per joint, those of each replaced part the donor's; the joint that a part
    hangs on is the host's."""
    if block.rates is not None:
        donor = donor.clone()
        donor[..., block.rates] *= speed
    mixed = host.clone()
    for number, part in enumerate(PARTS):
        joints = np.array([joint for joint in body.limbs[part] if joint != body.root(part)])
        joint_columns = to_device(torch.from_numpy(block.joint_columns(joints)), host.device)
        is_replaced = replaced[:, number, None, None, None]
        mixed[..., joint_columns] = torch.where(
            is_replaced, donor[..., joint_columns], host[..., joint_columns]
        )
    return mixed


def _resample_to_host(frames: Tensor, lengths: Tensor, donor_idx: Tensor) -> tuple[Tensor, Tensor]:
    """Each host's donor (B, T, persons, D) at the host's length, nearest frames; and its speed (B,
    1, 1, 1).

    A donor that is longer than its host runs faster: its speed is above 1.
    """
    speed = (lengths[donor_idx] - 1) / (lengths - 1).clamp(min=1)
    steps = torch.arange(frames.shape[1], device=frames.device)
    frame_idx = (steps * speed[:, None]).round().long().minimum(lengths[donor_idx][:, None] - 1)
    return frames[donor_idx[:, None], frame_idx], speed.to(frames.dtype)[:, None, None, None]
