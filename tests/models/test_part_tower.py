"""The part tower: encoders that keep to their part, part tokens, and the variant that uses them."""

import json

import numpy as np
import pytest
import torch

import helpers
import train
from motret.data import features
from motret.data.inputs import MotionBatch
from motret.models.dual_encoder import DualEncoder
from motret.models.part_tower import PartTransformer
from motret.skeleton import PARTS

COLUMNS = features.feature_columns(2)


def make_tower(**values) -> PartTransformer:
    torch.manual_seed(0)
    config = helpers.config(**{"part_encoders": True} | values).motion
    return PartTransformer(config, 2, COLUMNS).eval()


def make_batch(lengths=(24, 40, 31)) -> MotionBatch:
    return helpers.motion_batch(list(lengths), features=features.feature_width(2))


def test_the_columns_of_a_part_are_those_of_its_joints() -> None:
    vector_blocks = ("position", "velocity")
    joint_of = [joint for _ in vector_blocks for joint in range(22) for _ in range(3)]
    joint_of += [None] * 5  # root
    joint_of += [joint for joint in range(1, 22) for _ in range(6)]  # rotation
    joint_of += [None] * 21  # relation
    for part, joints in PARTS.items():
        expected = [column for column, joint in enumerate(joint_of) if joint in joints]
        assert sorted(features.part_columns(COLUMNS, part).tolist()) == expected
    positions = features.feature_columns(1, rotations=False)
    assert len(features.part_columns(positions, "torso")) == 2 * 3 * len(PARTS["torso"])


def test_a_part_encoder_sees_its_own_part_alone() -> None:
    tower, batch = make_tower(), make_batch()
    columns = features.part_columns(COLUMNS, "right_arm")
    for part in ("left_arm", "torso"):
        columns = np.setdiff1d(columns, features.part_columns(COLUMNS, part))
    frames = batch.frames.clone()
    frames[..., columns] += 1
    with torch.no_grad():
        _, (_, before) = tower.forward_parts(batch)
        _, (_, after) = tower.forward_parts(MotionBatch(frames, batch.lengths))
    changed = (before - after).abs().amax(dim=(0, 2)) > 0
    assert changed.tolist() == [part == "right_arm" for part in PARTS]


def test_neither_swapped_persons_nor_padding_change_a_part() -> None:
    tower, batch = make_tower(), make_batch()
    with torch.no_grad():
        motion, views = tower.forward_parts(batch)
        swapped = MotionBatch(batch.frames.flip(2), batch.lengths)
        motion_swapped, views_swapped = tower.forward_parts(swapped)
        alone = MotionBatch(batch.frames[:1, :24], batch.lengths[:1])
        _, views_alone = tower.forward_parts(alone)
        assert torch.equal(tower(batch), motion)
    assert torch.allclose(motion, motion_swapped, atol=1e-5)
    for view in range(2):
        assert views[view].shape == (3, 5, tower.part_dim)
        assert torch.allclose(views[view], views_swapped[view], atol=1e-5)
        assert torch.allclose(views[view][0], views_alone[view][0], atol=1e-5)


def test_part_encoders_drop_tokens_only_while_training() -> None:
    tower, batch = make_tower(part_token_drop=0.5), make_batch()
    token_counts: list[int] = []

    def count_tokens(_module, args, _output) -> None:
        token_counts.append(args[1].real.shape[1])

    tower.backbone.blocks[0].register_forward_hook(count_tokens)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        tower.forward_parts(batch)
        tower.forward_parts(MotionBatch(batch.frames, batch.lengths, generator))
    patches = 40 // 6  # 6, 3 after dropping, 2 for a part encoder
    evaluated = [patches + 6, *[patches + 1] * 5]
    trained = [patches // 2 + 6, *[2 + 1] * 5]
    assert token_counts == evaluated + trained


@pytest.mark.parametrize("token_drop", [0.0, 0.5])
def test_part_encoders_get_random_real_patches_with_and_without_token_drop(
    token_drop: float,
) -> None:
    """Every patch holds its number; encoders get numbers from all over a motion, never padding."""
    tower, lengths = make_tower(part_token_drop=0.5, token_drop=token_drop), (24, 48, 48)
    numbers = (torch.arange(48.0) // tower.patch)[None, :, None, None]
    frames = numbers.expand(3, 48, 2, features.feature_width(2)).clone()
    frames[0, 24:] = frames[0, 23]
    calls: list[tuple] = []

    def record(*args):
        calls.append(args)
        return torch.zeros(3, 5, tower.part_dim)

    tower._encode_parts = record
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(60):
            tower.forward_parts(MotionBatch(frames, torch.tensor(lengths), generator))
    count = 8 // (4 if token_drop else 2)
    for patches, positions, mask in calls:
        assert patches.shape[2] == positions.shape[1] == mask.shape[1] == count
        expected = positions[:, None].expand(3, 2, count).to(patches.dtype)
        assert torch.equal(patches[..., 0], expected)
        assert all(len(set(row.tolist())) == count for row in positions)
        assert (positions[0][mask[0]] < 24 // tower.patch).all() and mask[1:].all()
    second = [positions[1].tolist() for _, positions, _ in calls]
    third = [positions[2].tolist() for _, positions, _ in calls]
    assert {position for row in second for position in row} == set(range(8))
    assert len({tuple(sorted(row)) for row in second}) > 5
    assert any(set(row) != set(other) for row, other in zip(second, third, strict=True))


def test_without_encoders_the_part_tokens_are_the_only_view() -> None:
    tower = make_tower(part_encoders=False)
    assert len(tower.forward_parts(make_batch())[1]) == 1
    assert not hasattr(tower, "adapters")


# ---- the variant


def train_sgar(out_dir, name, **values) -> int:
    return train.main(["sgar", *helpers.train_flags(out_dir, name, **values)[1:]])


def test_the_variant_trains_from_the_gar_file_and_from_the_motions(tmp_path, capsys) -> None:
    assert train_sgar(tmp_path, "file", fold=0, epochs=1) == 0
    output = capsys.readouterr().out
    assert "part texts from" in output and "gar_train.json" in output and "file: score" in output
    losses = {"lambda_direction": 0.1, "lambda_mix": 0.5}
    values = {"fold": 0, "epochs": 1, "part_text": "motion", "part_encoders": True}
    assert train_sgar(tmp_path, "motions", **values, **losses) == 0
    assert "part texts from the motions" in capsys.readouterr().out
    checkpoint = next((tmp_path / "file" / "fold0").glob("best_epoch*.pt"))
    weights = torch.load(checkpoint, weights_only=True)["model"]
    assert "motion_tower.part_tokens" in weights and "part_head.0.weight" in weights


def test_parts_change_what_is_learned_and_without_them_it_is_holistic(tmp_path) -> None:
    values = {"fold": 0, "epochs": 1}
    assert train_sgar(tmp_path, "with", **values) == 0
    assert train_sgar(tmp_path, "without", no_use_gar=True, part_encoders=True, **values) == 0
    assert helpers.run_training(tmp_path, "holistic", **values) == 0
    embeddings = {
        name: np.load(tmp_path / name / "fold0" / "oof.npz")["motion"]
        for name in ("with", "without", "holistic")
    }
    assert not np.allclose(embeddings["with"], embeddings["without"])
    assert np.array_equal(embeddings["without"], embeddings["holistic"])


def test_without_part_texts_the_part_tower_is_the_plain_one() -> None:
    def encoder(**values) -> DualEncoder:
        torch.manual_seed(0)
        return DualEncoder(helpers.config(**values), 2, COLUMNS, helpers.TEXT_DIM).eval()

    part_values = {"motion_tower": "part", "part_encoders": True}
    plain, without = encoder(), encoder(**part_values)
    with_parts = encoder(**part_values, use_gar=True)
    without.load_state_dict(plain.state_dict())  # the same parameters, by name and shape
    with_parts.load_state_dict(plain.state_dict(), strict=False)
    batch = make_batch()
    with torch.no_grad():
        expected = plain.encode_motions(batch)
        assert torch.equal(without.encode_motions(batch), expected)
        # part tokens are attended to and pooled
        assert not torch.allclose(with_parts.encode_motions(batch), expected, atol=1e-3)


def test_changed_part_texts_stop_a_run_that_goes_on(own_challenge, tmp_path, capsys) -> None:
    path = own_challenge / "texts" / "gar_train.json"
    values = {"data": own_challenge, "fold": 0, "epochs": 1, "resume": "auto"}
    assert train_sgar(tmp_path, "one", **values) == 0
    assert train_sgar(tmp_path, "one", **values) == 0
    assert "finished before: fold0" in capsys.readouterr().out
    entries = json.loads(path.read_text())
    entries[0]["part_descriptions"]["torso"] = "the body sways like a reed"
    path.write_text(json.dumps(entries))
    assert train_sgar(tmp_path, "one", **values) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {tmp_path / 'one'}: was trained on other part texts (gar ")
    assert ", now gar " in error and error.endswith("(give another --run_name)")


def test_a_tower_without_parts_is_refused_by_name(tmp_path, capsys) -> None:
    assert train.main([*helpers.train_flags(tmp_path, "whole", fold=0), "--use_gar"]) == 1
    assert "error: --use_gar: transformer knows no parts" in capsys.readouterr().err
