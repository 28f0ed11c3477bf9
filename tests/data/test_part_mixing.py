"""A mixture takes over whole parts, leaves the rest and the pelvis path alone, and keeps the
features true to each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import helpers
from motret import skeleton
from motret.data import batching, feature_blocks, features, part_mixing
from motret.data.features import FeatureConfig
from motret.data.inputs import MotionBatch
from motret.skeleton import PARTS
from motret.synthetic import motion
from motret.training import objective

COLUMNS = features.feature_columns(2)
NAMES = list(PARTS)


@pytest.fixture(scope="module")
def acted() -> MotionBatch:
    """Features of four acted scenes, held at their last frames up to the longest."""
    scenes = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        positions, rotations = skeleton.split_columns(
            motion.act_out(motion.draw_scene(rng), 30.0, rng)
        )
        scenes.append(
            torch.from_numpy(
                features.make_features(positions, rotations, np.array([0]), FeatureConfig())
            )
        )
    lengths = torch.tensor([len(scene) for scene in scenes])
    longest = int(lengths.max())
    return MotionBatch(
        torch.stack([torch.cat([s, s[-1:].expand(longest - len(s), -1, -1)]) for s in scenes]),
        lengths,
    )


def joints(frames, name="position"):
    return frames[..., COLUMNS[name]].unflatten(-1, (22, 3))


def mix(motions, donor_idx, *parts):
    replaced = torch.tensor([[name in parts for name in NAMES]] * len(motions.lengths))
    return part_mixing.mix_parts(
        motions.frames, motions.lengths, torch.tensor(donor_idx), replaced, COLUMNS
    )


def test_the_distances_between_persons_are_those_of_the_features(acted) -> None:
    distances = feature_blocks.contact_distances(
        joints(acted.frames), acted.frames[..., COLUMNS["relation"]]
    )
    assert torch.allclose(distances, acted.frames[..., COLUMNS["relation"]][..., 5:], atol=1e-4)


def test_nothing_replaced_or_everything_from_oneself_changes_nothing(acted) -> None:
    for mixed in (
        mix(acted, [1, 2, 3, 0]),
        mix(acted, [0, 1, 2, 3], "right_arm", "torso", "left_leg"),
    ):
        assert torch.allclose(mixed, acted.frames, atol=1e-4)


def test_a_replaced_arm_is_the_other_ones_arm_on_the_hosts_spine(acted) -> None:
    mixed = mix(acted, [1, 2, 3, 0], "right_arm")
    arm, rest = [14, 17, 19, 21], [joint for joint in range(22) if joint not in (14, 17, 19, 21)]
    host, donor = 2, 3
    span = int(acted.lengths[host])
    frame_idx = (torch.arange(span) * (acted.lengths[donor] - 1) / (span - 1)).round().long()
    donor_joints, host_joints = (
        joints(acted.frames)[donor, frame_idx],
        joints(acted.frames)[host, :span],
    )
    new = joints(mixed)[host, :span]
    assert torch.allclose(new[:, :, rest], host_joints[:, :, rest], atol=1e-6)
    assert torch.allclose(
        new[:, :, arm] - new[:, :, [9]],
        donor_joints[:, :, arm] - donor_joints[:, :, [9]],
        atol=1e-6,
    )
    turned = slice(
        COLUMNS["rotation"].start + 6 * 18, COLUMNS["rotation"].start + 6 * 19
    )  # the right elbow, joint 19
    assert torch.equal(mixed[host, :span, :, turned], acted.frames[donor, frame_idx][:, :, turned])
    assert torch.equal(
        mixed[host, :, :, COLUMNS["root"]], acted.frames[host, :, :, COLUMNS["root"]]
    )


def test_an_arm_follows_a_replaced_torso(acted) -> None:
    mixed = mix(acted, [1, 2, 3, 0], "torso")
    before, after = joints(acted.frames), joints(mixed)
    assert not torch.allclose(before[0, :, :, 9], after[0, :, :, 9], atol=1e-3)
    assert torch.allclose(
        after[..., 21, :] - after[..., 9, :], before[..., 21, :] - before[..., 9, :], atol=1e-5
    )
    assert torch.equal(after[..., 0, :], before[..., 0, :])


def test_velocities_run_at_the_pace_of_the_resampling(acted) -> None:
    mixed = mix(acted, [1, 2, 3, 0], "left_leg")
    span = int(acted.lengths[0])
    speed = (acted.lengths[1] - 1) / (span - 1)
    frame_idx = (torch.arange(span) * speed).round().long()
    foot = joints(acted.frames, "velocity")[1, frame_idx, :, 10] * speed
    assert torch.allclose(joints(mixed, "velocity")[0, :span, :, 10], foot, atol=1e-5)


def test_distances_follow_the_replaced_parts(acted) -> None:
    mixed = mix(acted, [1, 2, 3, 0], "right_arm", "torso")
    distances = feature_blocks.contact_distances(joints(mixed), mixed[..., COLUMNS["relation"]])
    assert torch.allclose(mixed[..., COLUMNS["relation"]][..., 5:], distances)
    assert torch.equal(
        mixed[..., COLUMNS["relation"]][..., :5], acted.frames[..., COLUMNS["relation"]][..., :5]
    )
    assert not torch.allclose(distances, acted.frames[..., COLUMNS["relation"]][..., 5:], atol=1e-2)


def test_swapping_the_persons_swaps_the_mixture(acted) -> None:
    parts = ("right_arm", "torso", "left_leg")
    swapped = mix(MotionBatch(acted.frames.flip(2), acted.lengths), [1, 2, 3, 0], *parts)
    back = swapped.flip(2)
    here = mix(acted, [1, 2, 3, 0], *parts)
    assert torch.equal(
        back[..., : COLUMNS["relation"].start], here[..., : COLUMNS["relation"].start]
    )
    assert torch.allclose(back, here, atol=1e-5)


def drawn(seed):
    lengths = [12, 30, 24, 18, 9]
    batch = helpers.motion_batch(
        lengths, features=features.feature_width(2), generator=torch.Generator().manual_seed(seed)
    )
    return part_mixing.sample_part_mix(batch, COLUMNS)


def test_a_drawn_mixture_takes_two_or_three_parts_of_another_motion_and_repeats_by_seed() -> None:
    draws = [drawn(seed) for seed in (*range(20), 0)]
    for draw in draws:
        assert sorted(draw.donor_idx.tolist()) == list(range(5))
        assert all(donor != host for host, donor in enumerate(draw.donor_idx.tolist()))
    counts = torch.cat([draw.replaced.sum(dim=1) for draw in draws])
    assert set(counts.tolist()) == {2, 3}
    assert torch.cat([draw.replaced for draw in draws]).any(dim=0).all()
    assert torch.equal(draws[0].motions.frames, draws[-1].motions.frames)
    assert not torch.equal(draws[0].replaced, draws[1].replaced)


def test_motions_of_one_person_and_of_one_frame_are_mixed() -> None:
    columns = features.feature_columns(1, rotations=False)
    lone = helpers.motion_batch(
        [1, 7],
        persons=1,
        features=features.feature_width(1, False),
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.isfinite(part_mixing.sample_part_mix(lone, columns).motions.frames).all()


def test_the_mixture_adds_to_the_loss_by_its_weight(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(objective, "contrastive_loss", lambda *_: torch.tensor(1.0))
    monkeypatch.setattr(objective, "part_contrast_loss", lambda *_: torch.tensor(10.0))
    monkeypatch.setattr(objective, "part_direction_term", lambda *_: torch.tensor(100.0))
    monkeypatch.setattr(
        objective, "mixture_loss", lambda *_: calls.append(1) or torch.tensor(1000.0)
    )
    train_context = helpers.workplace(
        helpers.config(), helpers.training_data(captions=(("a",), ("b",)))
    )
    train_context = replace(train_context, part_texts=torch.zeros(2, 5, dtype=torch.long))
    batch = batching.Batch(torch.arange(2), (), torch.arange(2), torch.arange(2))
    part_text = torch.ones(2, 5, 2)
    plain = objective.BatchEmbeddings(
        caption=torch.eye(2), motion=torch.eye(2), parts=part_text[:, None], part_text=part_text
    )
    config = helpers.config(use_gar=True, lambda_part=2.0, lambda_mix=3.0, lambda_direction=4.0)
    mixed = replace(plain, mixed=torch.eye(2))
    assert (
        objective.total_loss(mixed, torch.tensor(1.0), batch, train_context, config).total.item()
        == 1 + 20 + 3000 + 400
    )
    assert (
        objective.total_loss(plain, torch.tensor(1.0), batch, train_context, config).total.item()
        == 421
    )
    assert len(calls) == 1
