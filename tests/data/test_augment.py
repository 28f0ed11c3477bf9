"""A changed motion is one that could have been recorded: mirrored, swapped, faster, cut out; noise
and masks only while training."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import helpers
import prepare
import train
from helpers import body, load, sixes, write_data
from motret.config.training import AugmentConfig
from motret.data import augment, batching, caption_mirror, features, inputs, rotations
from motret.data.augment import BatchAugmentation
from motret.data.batching import CaptionTable, MotionTensors
from motret.data.features import FeatureConfig
from motret.data.parts import part_texts
from motret.data.rotations import Convention, FittedConvention
from motret.errors import ConfigError
from motret.models import text_tower
from motret.models.dual_encoder import DualEncoder
from motret.skeleton import MIRROR, OTHER_SIDE, PARTS
from motret.training import context, objective

FLIP = np.array([-1.0, 1.0, 1.0], dtype=np.float32)
COLUMNS = features.feature_columns(2)
CONTIGUOUS = FittedConvention(Convention(), 0.0, 0, 0.0)
ALTERNATING = FittedConvention(Convention(alternating=True), 0.0, 0, 0.0)


def featured(positions, six, **values):
    config = FeatureConfig(**values)
    return torch.from_numpy(features.make_features(positions, six, np.array([0]), config))


def mirrored_scene(positions, six, convention):
    return positions[:, :, MIRROR] * FLIP, (six[:, :, MIRROR[1:] - 1] * convention.signs()).astype(
        np.float32
    )


# ---- mirror


@pytest.mark.parametrize("convention", [CONTIGUOUS, ALTERNATING], ids=["contiguous", "alternating"])
@pytest.mark.parametrize("persons", [1, 2])
def test_mirrored_features_are_the_features_of_the_mirrored_motion(persons, convention) -> None:
    positions, six = body(20, persons), sixes(20, persons)
    mirror = augment.make_mirror(features.feature_columns(persons), convention)
    torch.testing.assert_close(
        mirror(featured(positions, six)),
        featured(*mirrored_scene(positions, six, convention)),
        atol=2e-5,
        rtol=0,
    )
    mirror = augment.make_mirror(features.feature_columns(persons, rotations=False))
    expected = featured(*mirrored_scene(positions, six, convention), rotations=False)
    torch.testing.assert_close(
        mirror(featured(positions, six, rotations=False)), expected, atol=2e-5, rtol=0
    )


def test_mirroring_twice_changes_nothing() -> None:
    frames, mirror = featured(body(20), sixes(20)), augment.make_mirror(COLUMNS, CONTIGUOUS)
    assert torch.equal(mirror(mirror(frames)), frames)
    assert not torch.allclose(mirror(frames), frames, atol=0.1)


def test_parts_change_their_columns_in_the_mirror() -> None:
    frames, mirror = featured(body(20), sixes(20)), augment.make_mirror(COLUMNS, CONTIGUOUS)
    mirrored = mirror(frames)
    for part, joints in PARTS.items():
        other_side = list(PARTS[OTHER_SIDE[part]])
        assert [int(MIRROR[joint]) for joint in joints] == other_side
        heights, plain_heights = (
            frame[..., COLUMNS["position"]].unflatten(-1, (22, 3))[..., 1]
            for frame in (mirrored, frames)
        )
        assert torch.equal(heights[..., list(joints)], plain_heights[..., other_side])


def test_motions_whose_rotations_nobody_understands_are_not_mirrored_and_a_warning_says_so(
    tmp_path,
) -> None:
    data = load(write_data(tmp_path / "data", ["a", "b", "c"]))
    with pytest.raises(ConfigError, match=r"--mirror: .*no_rotations"):
        augment.find_mirror(data, "--mirror")
    with pytest.warns(UserWarning, match=r"nothing is mirrored: --mirror: .*no_rotations"):
        augmentation = augment.make_augmentation(
            helpers.config(mirror=0.5, speed=1.2), data, helpers.CPU
        )
    changes = augmentation.sample(torch.arange(3), torch.full((3,), 9), torch.Generator())
    assert augmentation.mirror is None and changes.mirrored is None and changes.speed is not None
    assert (
        augment.make_augmentation(helpers.config(noise=0.5, frame_mask=0.5), data, helpers.CPU)
        is None
    )
    without = load(write_data(tmp_path / "other", ["a", "b"]), rotations=False)
    assert (
        augment.make_augmentation(helpers.config(mirror=0.5), without, helpers.CPU).mirror
        is not None
    )


def test_person_swap_needs_two_persons() -> None:
    with pytest.raises(ConfigError, match="--person_swap"):
        augment.make_augmentation(
            helpers.config(person_swap=0.5), helpers.training_data(persons=1), helpers.CPU
        )


# ---- speed and crop


def gathered(lengths, **values):
    packed = helpers.store(lengths)
    return packed, MotionTensors(packed, helpers.config(**values).motion, helpers.CPU)


@pytest.mark.parametrize("rule", ["subsample", "crop"])
def test_a_motion_at_another_speed_is_what_a_loop_makes_of_it(rule) -> None:
    packed, gallery = gathered([40, 7, 90, 1], long_motions=rule, max_frames=60)
    speeds, crops = [1.25, 0.5, 0.8, 2.0], [(5, 30), (1, 6), (0, 90), (0, 1)]
    batch = gallery.gather(torch.arange(4), speed=torch.tensor(speeds), crop=torch.tensor(crops))
    for motion_idx, (speed, (first, count)) in enumerate(zip(speeds, crops, strict=True)):
        whole = packed.motion(motion_idx)[first : first + count]
        resampled = math.floor((count - 1) / np.float32(speed)) + 1
        length = min(resampled, 60)
        step = (count - 1) / max(length - 1, 1) if resampled > 60 and rule == "subsample" else speed
        skipped = (resampled - length) // 2 if rule == "crop" else 0
        expected = np.stack(
            [whole[round(float(np.float32((number + skipped) * step)))] for number in range(length)]
        )
        expected[..., COLUMNS["velocity"]] *= np.float32(speed)
        expected[..., COLUMNS["root"].start : COLUMNS["root"].start + 4] *= np.float32(speed)
        assert int(batch.lengths[motion_idx]) == length
        np.testing.assert_allclose(batch.frames[motion_idx, :length].numpy(), expected, rtol=1e-6)
        np.testing.assert_allclose(
            batch.frames[motion_idx, length:].numpy(),
            np.repeat(expected[-1:], batch.frames.shape[1] - length, 0),
            rtol=1e-6,
        )


def test_a_motion_run_faster_moves_like_one_recorded_faster() -> None:
    fast = featured(body(41)[::2], sixes(41)[::2])
    packed, gallery = gathered([41])
    packed.features[:] = featured(body(41), sixes(41)).numpy()
    faster = gallery.gather(torch.tensor([0]), speed=torch.tensor([2.0])).frames[0]
    assert faster.shape == fast.shape
    torch.testing.assert_close(
        faster[..., COLUMNS["position"]], fast[..., COLUMNS["position"]], atol=2e-3, rtol=1e-3
    )
    near = (faster - fast)[:-1, :, COLUMNS["velocity"]].abs().mean() / fast[
        ..., COLUMNS["velocity"]
    ].abs().mean()
    assert near < 0.1  # of one frame's difference against that of two


def test_a_piece_is_contiguous_and_never_empty_or_out_of_bounds() -> None:
    whole = torch.tensor([1, 2, 10, 300]).repeat(500)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, len(whole), generator=generator)
    first, size = augment.random_crop(whole, 0.3, *noise).unbind(dim=1)
    assert (first >= 0).all() and (size >= 1).all() and (first + size <= whole).all()
    assert (
        (size >= 0.7 * whole).all()
        and (size[whole == 300] < 220).any()
        and (size[whole == 300] > 290).any()
    )
    assert {0, 1, 2} == set(first[(whole == 10)].tolist())


# ---- drawing


CAPTIONS = tuple(
    (
        f"lifts the left arm {motion_idx}",
        "the first person bows" if motion_idx % 4 == 0 else f"waves {motion_idx}",
    )
    for motion_idx in range(19)
)
CAPTIONS += (
    ("lifts the right arm 19", "moves right up a step"),
)  # the second of them cannot be mirrored


def drawn(**values):
    """Batches of an epoch of 20 motions, with the data and everything they were drawn from."""
    data = helpers.training_data(CAPTIONS)
    texts = [caption for captions in CAPTIONS for caption in captions]
    bank = inputs.CaptionBank(
        {
            caption: index
            for index, caption in enumerate(
                sorted({*texts, *caption_mirror.mirror_captions(texts).values()})
            )
        }
    )
    config = AugmentConfig(**{"mirror": 0.0, "speed": 1.0} | values)
    has_order = torch.tensor(
        [any("first" in caption for caption in captions) for captions in CAPTIONS]
    )
    augmentation = augment.Augmentation(
        config, augment.make_mirror(COLUMNS, CONTIGUOUS), ~has_order, torch.arange(20) < 19
    )
    table, gallery = (
        CaptionTable(CAPTIONS, bank, mirrored=True),
        MotionTensors(data.store, helpers.config().motion, helpers.CPU),
    )
    random = batching.EpochRandom.seeded(np.random.default_rng(0), 0, helpers.CPU)
    batches = list(
        batching.iterate_epoch(
            gallery,
            table,
            np.arange(20),
            10,
            random,
            2,
            augmentation,
        )
    )
    return data, bank, gallery, augmentation, batches


def test_mirrored_motions_come_with_mirrored_captions_and_the_others_with_their_own() -> None:
    _, bank, gallery, augmentation, batches = drawn(mirror=0.5)
    texts = list(bank.index)
    assert 0 < sum(int(batch.mirrored.sum()) for batch in batches) < 20
    for batch in batches:
        frames = torch.cat(
            [
                torch.nn.functional.pad(piece.frames, (0, 0, 0, 0, 0, 60 - piece.frames.shape[1]))
                for piece in batch.buckets
            ]
        )
        for position, motion_idx in enumerate(batch.train_idx.tolist()):
            plain = gallery.gather(torch.tensor([motion_idx])).frames[0]
            turned = bool(batch.mirrored[position])
            assert torch.equal(
                frames[position, : len(plain)], augmentation.mirror(plain) if turned else plain
            )
            motion_captions = [
                texts[number] for number in batch.caption_idx[batch.motion_idx == position].tolist()
            ]
            assert motion_captions == [
                caption_mirror.mirror_caption(caption) if turned else caption
                for caption in CAPTIONS[motion_idx]
            ]


def test_a_motion_of_which_one_text_cannot_be_mirrored_is_never_mirrored(
    monkeypatch, capsys
) -> None:
    *_, batches = drawn(mirror=1.0)
    assert {
        int(motion_idx): bool(turned)
        for batch in batches
        for motion_idx, turned in zip(batch.train_idx, batch.mirrored, strict=True)
    } == {motion_idx: motion_idx < 19 for motion_idx in range(20)}
    monkeypatch.setattr(rotations, "find_convention_in_files", lambda *_: CONTIGUOUS)
    parts = [
        dict.fromkeys(PARTS) | {"torso": "leans rigth" if motion_idx == 3 else "leans right"}
        for motion_idx in range(20)
    ]
    for motion_parts, left_out in ((None, {19}), (parts, {3, 19})):
        augmentation = augment.make_augmentation(
            helpers.config(mirror=0.5), helpers.training_data(CAPTIONS), helpers.CPU, motion_parts
        )
        assert set(np.flatnonzero(~augmentation.mirrorable.numpy()).tolist()) == left_out
        assert f"{len(left_out)} of 20 motions are not mirrored" in capsys.readouterr().out


def test_persons_are_not_swapped_where_a_caption_tells_them_by_order() -> None:
    _, _, gallery, _, batches = drawn(person_swap=1.0)
    for batch in batches:
        first = torch.cat([piece.frames[:, 0] for piece in batch.buckets])
        for position, motion_idx in enumerate(batch.train_idx.tolist()):
            plain = gallery.gather(torch.tensor([motion_idx])).frames[0, 0]
            assert torch.equal(first[position], plain if motion_idx % 4 == 0 else plain.flip(0))


def test_speeds_are_drawn_evenly_around_one_and_lengths_follow() -> None:
    *_, batches = drawn(speed=1.25, crop=0.5)
    augmentation = augment.Augmentation(
        AugmentConfig(speed=1.25), None, *torch.ones(2, 2000, dtype=torch.bool)
    )
    speed = augmentation.sample(
        torch.arange(2000), torch.full((2000,), 100), torch.Generator().manual_seed(0)
    ).speed
    assert (
        0.8 <= float(speed.min()) < 0.81
        and 1.24 < float(speed.max()) <= 1.25
        and abs(float(speed.log().mean())) < 0.01
    )
    for batch in batches:
        lengths = torch.cat([piece.lengths for piece in batch.buckets]).tolist()
        assert lengths == sorted(lengths)


def test_what_is_off_draws_nothing_and_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    augmentation = augment.Augmentation(
        AugmentConfig(mirror=0.0, speed=1.0), None, *torch.ones(2, 3, dtype=torch.bool)
    )
    assert (
        augmentation.sample(torch.arange(3), torch.tensor([5, 6, 7]), generator)
        == BatchAugmentation()
    )
    assert torch.equal(generator.get_state(), state)
    assert BatchAugmentation().lengths(torch.tensor([5])).tolist() == [5]


def test_the_part_texts_of_a_mirrored_motion_are_those_of_the_other_side() -> None:
    data = helpers.training_data(tuple((f"motion {motion_idx}",) for motion_idx in range(4)))
    parts = [
        dict.fromkeys(PARTS)
        | {"left_arm": f"lifts the left hand {motion_idx}", "torso": "leans right"}
        for motion_idx in range(4)
    ]
    texts_used = [
        text
        for motion_parts in parts
        for part in (motion_parts, part_texts.mirror_parts(motion_parts))
        for text in part.values()
        if text
    ]
    index = {
        caption: motion_idx
        for motion_idx, caption in enumerate(
            sorted({*texts_used, *(motion_parts[0] for motion_parts in data.training.captions)})
        )
    }
    bank = inputs.CaptionBank(index, vectors=torch.eye(len(index)))
    config = helpers.config(mirror=0.5, use_gar=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotations, "find_convention_in_files", lambda *_: CONTIGUOUS)
        train_context = context.make_context(config, data, bank, parts)
    batch = batching.Batch(
        torch.tensor([1, 2]), (), torch.tensor([0]), torch.tensor([0]), torch.tensor([True, False])
    )
    texts = [
        None if motion_idx < 0 else list(index)[motion_idx]
        for motion_idx in objective.part_text_idx(batch, train_context).flatten().tolist()
    ]
    assert texts[:5] == ["lifts the right hand 1", None, None, None, "leans left"]
    assert texts[5:] == [None, "lifts the left hand 2", None, None, "leans right"]


# ---- noise, masks and captions


def model(**values):
    config = helpers.config(**values)
    encoder = DualEncoder(config, 2, {"position": slice(0, 10)}, helpers.TEXT_DIM)
    return config, encoder


def standardised(encoder, generator):
    batch = helpers.motion_batch([40, 60], generator=generator)
    return batch.frames.clamp(-8, 8), encoder._standardised(batch).frames


def test_noise_has_the_deviation_asked_for_and_only_while_training() -> None:
    _, encoder = model(noise=0.3)
    plain, noisy = standardised(encoder, torch.Generator().manual_seed(0))
    assert float((noisy - plain).std()) == pytest.approx(0.3, rel=0.05)
    plain, still = standardised(encoder, None)
    assert torch.equal(still, plain)


def test_rotations_of_each_person_get_an_offset_that_stays_over_time() -> None:
    rotation = slice(4, 10)
    columns = {"position": slice(0, 4), "rotation": rotation}
    config = helpers.config(rotation_offset=1.5)
    encoder = DualEncoder(config, 2, columns, helpers.TEXT_DIM)
    batch = helpers.motion_batch([20] * 60, generator=torch.Generator().manual_seed(0))
    change = encoder._standardised(batch).frames - batch.frames.clamp(-8, 8)
    torch.testing.assert_close(change, change[:, :1].expand_as(change))
    inside = change[:, 0, :, rotation]
    assert float(inside.std()) == pytest.approx(1.5, rel=0.1)
    assert not torch.equal(inside[:, 0], inside[:, 1]) and not torch.equal(inside[0], inside[1])
    outside = torch.ones(change.shape[-1], dtype=torch.bool)
    outside[rotation] = False
    assert not change[..., outside].any()
    still = replace(batch, generator=None)
    assert torch.equal(encoder._standardised(still).frames, batch.frames.clamp(-8, 8))


def test_masked_frames_are_zero_for_both_persons_and_the_others_stay() -> None:
    _, encoder = model(frame_mask=0.3)
    plain, masked = standardised(encoder, torch.Generator().manual_seed(0))
    hidden = (masked == 0).all(dim=-1)
    assert (
        torch.equal(hidden[:, :, 0], hidden[:, :, 1]) and 0.2 < float(hidden.float().mean()) < 0.4
    )
    assert torch.equal(masked[~hidden], plain[~hidden])
    assert torch.equal(*standardised(encoder, None))


def test_a_share_of_captions_is_replaced_by_the_mean_of_their_motion() -> None:
    caption = torch.nn.functional.normalize(
        torch.randn(400, 8, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    motion_idx = torch.arange(200).repeat_interleave(2)
    batch = batching.Batch(
        torch.arange(200), (), motion_idx, motion_idx, None, torch.Generator().manual_seed(1)
    )

    def mix(**settings: float) -> torch.Tensor:
        embeddings = objective.BatchEmbeddings(motion=torch.empty(200, 8), caption=caption)
        context, config = SimpleNamespace(device=helpers.CPU), helpers.config(**settings)
        inputs = objective.LossInputs(embeddings, torch.ones(()), batch, context, config)
        return objective.mix_captions(inputs)

    mixed_captions = mix(caption_mix=0.25)
    mean = caption.view(200, 2, 8).mean(dim=1)
    mean = (mean / mean.norm(dim=-1, keepdim=True)).repeat_interleave(2, dim=0)
    mixed = torch.isclose(mixed_captions, mean, atol=1e-6).all(dim=-1)
    assert 0.2 < float(mixed.float().mean()) < 0.3
    assert torch.equal(mixed_captions[~mixed], caption[~mixed])
    assert mix() is caption


def test_dropped_words_leave_the_ends_and_the_order_of_the_rest() -> None:
    lengths = torch.tensor([2, 3, 12, 20])
    ids = torch.arange(1, 21).repeat(4, 1) * (torch.arange(20) < lengths[:, None])
    total = 0
    for seed in range(50):
        kept_ids, kept_lengths = text_tower.drop_words(
            ids, lengths, 0.3, torch.Generator().manual_seed(seed)
        )
        for original, remaining, count, length in zip(
            ids.tolist(), kept_ids.tolist(), kept_lengths.tolist(), lengths.tolist(), strict=True
        ):
            assert (
                remaining[0] == original[0]
                and remaining[count - 1] == original[length - 1]
                and count >= min(length, 3)
            )
            assert remaining[:count] == sorted(set(remaining[:count])) and set(
                remaining[:count]
            ) <= set(original[:length])
        total += int((lengths - kept_lengths).sum())
    assert 0.25 < total / (50 * 28) < 0.35


def test_a_caption_that_loses_words_is_read_without_them() -> None:
    class Reader(torch.nn.Module):
        def forward(self, ids, lengths):
            calls.append((ids, lengths))
            return torch.zeros(len(ids), helpers.TEXT_DIM)

    calls = []
    tower = DualEncoder(
        helpers.config(word_dropout=0.5), 2, {"position": slice(0, 10)}, helpers.TEXT_DIM, Reader()
    )
    bank = inputs.CaptionBank({"a": 0}, ids=torch.arange(30)[None], lengths=torch.tensor([30]))
    tower.encode_captions(bank, torch.tensor([0, 0]), torch.Generator().manual_seed(0))
    tower.encode_captions(bank, torch.tensor([0, 0]))
    assert int(calls[0][1]) < 25 and int(calls[1][1]) == 30


# ---- settings and scripts


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mirror", 1.5),
        ("speed", 0.8),
        ("crop", 1.0),
        ("noise", -1.0),
        ("rotation_offset", -1.0),
        ("frame_mask", -0.1),
        ("caption_mix", 2.0),
    ],
)
def test_a_value_out_of_range_is_a_fault_of_its_flag(name, value) -> None:
    with pytest.raises(ConfigError, match=f"--{name}"):
        AugmentConfig(**{name: value})


def test_dropping_words_of_a_frozen_tower_is_a_fault(tmp_path, capsys) -> None:
    assert (
        train.main(
            [*helpers.train_flags(tmp_path, "a"), "--text_weights=openai", "--word_dropout=0.1"]
        )
        == 1
    )
    assert "error: --word_dropout: needs a text tower that trains" in capsys.readouterr().err


def test_a_run_with_everything_on_repeats_by_seed(tmp_path, capsys) -> None:
    on = {
        "mirror": 0.5,
        "person_swap": 0.5,
        "speed": 1.25,
        "crop": 0.2,
        "frame_mask": 0.1,
        "noise": 0.1,
        "rotation_offset": 0.5,
    }
    on |= {"caption_mix": 0.3, "word_dropout": 0.1, "fold": 0, "epochs": 1}
    for name in ("a", "b"):
        assert helpers.run_training(tmp_path, name, **on) == 0
    assert (
        "the first two columns" not in capsys.readouterr().out
    )  # that is told by prepare.py, once
    assert prepare.main(helpers.places()) == 0
    output = capsys.readouterr().out
    assert (
        output.count("rotation convention: ") == 1
        and "the first two columns, one after the other" in output
    )
    first, second = (
        np.load(tmp_path / name / "fold0" / "oof.npz")["motion"] for name in ("a", "b")
    )
    np.testing.assert_array_equal(first, second)
