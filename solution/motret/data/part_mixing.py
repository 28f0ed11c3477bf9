"""Part mixture: new motions out of those of a batch, some parts of one on the body of another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from motret.data.features import Columns
from motret.data.inputs import MotionBatch
from motret.skeleton import PARTS, SMPL

MIN_PARTS, MAX_PARTS = 2, 3
"""Parts that a mixture takes from the other motion."""
PRIORITY = ("torso", "right_leg", "left_leg", "right_arm", "left_arm")
"""The parts, each after what it hangs on."""


@dataclass(frozen=True)
class PartMix:
    """Motions with some parts of others: other: (B,) the motion that gave them; replaced: (B, 5) which parts it gave."""

    motions: MotionBatch
    donor_idx: Tensor
    replaced: Tensor


def sample_part_mix(batch: MotionBatch, columns: Columns) -> PartMix:
    """Gives each motion 2 or 3 parts of another motion of the batch, drawn from the batch's generator."""
    size, device = len(batch.lengths), batch.lengths.device
    shift = torch.randint(1, size, (1,), generator=batch.generator, device=device)
    order = torch.randperm(size, generator=batch.generator, device=device)
    other = torch.empty_like(order)
    other[order] = order.roll(int(shift))  # a permutation without fixed points
    count = torch.randint(MIN_PARTS, MAX_PARTS + 1, (size, 1), generator=batch.generator, device=device)
    luck = torch.rand(size, len(PARTS), generator=batch.generator, device=device)
    replaced = luck.argsort(dim=1).argsort(dim=1) < count
    frames = mix_parts(batch.frames, batch.lengths, other, replaced, columns)
    return PartMix(MotionBatch(frames, batch.lengths, batch.generator), other, replaced)


def mix_parts(frames: Tensor, lengths: Tensor, other: Tensor, replaced: Tensor, columns: Columns) -> Tensor:
    """Features (B, T, persons, D) with the parts in `replaced` (B, 5) taken from the motions `other` (B,), person by person.

    A part comes over in the person's own heading frame, resampled in time to the host's length, its velocities scaled alike, and
    hangs on the joint it is attached to; the pelvis path stays the host's. Distances between the persons follow.
    """
    given, pace = _resample_to_host(frames, lengths, other)
    body, count = columns.body, len(columns.body.joints)
    mixed = frames.clone()
    for name, scale in (("position", 1.0), ("velocity", pace)):
        host, guest = (_joints(source[..., columns[name]], count) for source in (frames, given))
        new = host.clone()
        for part in PRIORITY:
            root = body.root(part)
            own = [joint for joint in body.limbs[part] if joint != root]
            takes = replaced[:, list(PARTS).index(part), None, None, None, None]
            offset = torch.where(takes, (guest[..., own, :] - guest[..., [root], :]) * scale, host[..., own, :] - host[..., [root], :])
            new[..., own, :] = new[..., [root], :] + offset
        mixed[..., columns[name]] = new.flatten(-2)
    if "rotation" in columns:
        for number, (part, joints) in enumerate(body.limbs.items()):
            own = torch.tensor([joint - 1 for joint in joints if joint != body.root(part)], device=frames.device)
            at = columns["rotation"].start + (6 * own[:, None] + torch.arange(6, device=frames.device)).flatten()
            mixed[..., at] = torch.where(replaced[:, number, None, None, None], given[..., at], frames[..., at])
    if "relation" in columns:
        at = columns["relation"].start + 5
        mixed[..., at : columns["relation"].stop] = reach_distances(
            _joints(mixed[..., columns["position"]], count), mixed[..., columns["relation"]]
        )
    return mixed


def reach_distances(positions: Tensor, relation: Tensor) -> Tensor:
    """Distances (..., 2, 16) between the joints of `Skeleton.contact_joints` of two persons, own x other's.

    positions: (..., 2, 22, 3) in each person's heading frame; relation: (..., 2, >= 5) where the other person is, as in the features.
    """
    own = positions[..., SMPL.contact_joints, :]  # two persons come in SMPL's order alone
    other = own.flip(-3)
    sine, cosine = relation[..., 3:4], relation[..., 4:5]  # of the other's heading against one's own
    x, z = other[..., 0], other[..., 2]
    turned = torch.stack([cosine * x + sine * z, other[..., 1], cosine * z - sine * x], dim=-1)
    place = relation[..., None, :3] * relation.new_tensor([1.0, 0.0, 1.0])  # heights are above the floor already
    return torch.cdist(own, turned + place).flatten(-2)


def _resample_to_host(frames: Tensor, lengths: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The motions `other` at their hosts' lengths, nearest frames, and their pace (B, 1, 1, 1, 1): above 1 where they run faster."""
    pace = (lengths[other] - 1) / (lengths - 1).clamp(min=1)
    steps = torch.arange(frames.shape[1], device=frames.device)
    at = (steps * pace[:, None]).round().long().minimum(lengths[other][:, None] - 1)
    return frames[other[:, None], at], pace.to(frames.dtype)[:, None, None, None, None]


def _joints(flat: Tensor, count: int) -> Tensor:
    return flat.unflatten(-1, (count, 3))
