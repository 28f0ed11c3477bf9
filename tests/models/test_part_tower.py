"""What is learned from the parts of the body: losses against twins, towers that keep to their parts, texts from every source."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import helpers
import train
from motret.config import cli
from motret.data import features
from motret.data.inputs import MotionBatch
from motret.data.parts import describer, part_texts, phrases
from motret.errors import DataError
from motret.models.dual_encoder import DualEncoder
from motret.models.part_tower import PartTransformer
from motret.skeleton import PARTS
from motret.training import losses, objective
from motret.tuning import tuned_values
from motret.utils import files


def vectors(*shape, seed=0):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=-1, keepdims=True))


def softmax(row):
    return np.exp(row - row.max()) / np.exp(row - row.max()).sum()


def soft_twin(motion, text, defined, tau, tau_prime):
    """The soft part contrast of each part that two motions have, said in loops."""
    found = []
    for part in range(motion.shape[1]):
        rows = [m for m in range(len(motion)) if defined[m][part]]
        if len(rows) < 2:
            continue
        loss = 0.0
        for way, (ask, answer) in enumerate(((motion, text), (text, motion))):
            guide = text if way == 0 else motion
            for m in rows:
                target = softmax(np.array([guide[m, part] @ guide[n, part] for n in rows]) / tau_prime)
                said = softmax(np.array([ask[m, part] @ answer[n, part] for n in rows]) / tau)
                loss -= (target * np.log(said)).sum() / len(rows) / 2
        found.append(loss)
    return found


DEFINED = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)


def test_the_soft_part_contrast_is_its_plain_twin_as_mean_or_sum() -> None:
    motion, text = vectors(4, 3, 5), vectors(4, 3, 5, seed=1)
    found = soft_twin(motion.numpy(), text.numpy(), DEFINED.numpy(), 0.07, 0.05)
    assert len(found) == 2  # the third part is described once
    assert losses.soft_part_contrast(motion, text, DEFINED, 0.07, 0.05).item() == pytest.approx(np.mean(found))
    assert losses.soft_part_contrast(motion, text, DEFINED, 0.07, 0.05, "sum").item() == pytest.approx(sum(found))


def test_an_undefined_part_changes_nothing_and_the_order_of_motions_neither() -> None:
    motion, text = vectors(4, 3, 5), vectors(4, 3, 5, seed=1)
    whole, caption = vectors(4, 5, seed=2), vectors(4, 5, seed=3)
    other_motion, other_text = motion.clone(), text.clone()
    other_motion[~DEFINED] = other_motion[~DEFINED].flip(0)
    other_text[~DEFINED] *= -1
    order = torch.tensor([2, 0, 3, 1])
    soft = losses.soft_part_contrast(motion, text, DEFINED, 0.07, 0.05)
    straight = losses.part_direction_loss(whole, caption, motion, text, DEFINED)
    assert torch.equal(losses.soft_part_contrast(other_motion, other_text, DEFINED, 0.07, 0.05), soft)
    assert torch.equal(losses.part_direction_loss(whole, caption, other_motion, other_text, DEFINED), straight)
    assert losses.soft_part_contrast(motion[order], text[order], DEFINED[order], 0.07, 0.05).item() == pytest.approx(soft.item())
    assert losses.part_direction_loss(whole[order], caption[order], motion[order], text[order], DEFINED[order]).item() == pytest.approx(
        straight.item()
    )


def test_soft_targets_have_no_gradient() -> None:
    motion, text = vectors(2, 1, 3).requires_grad_(), vectors(2, 1, 3, seed=1).requires_grad_()
    defined = torch.ones(2, 1, dtype=torch.bool)
    losses.soft_part_contrast(motion, text, defined, 0.07, 0.05).backward()
    m, t = motion[:, 0].detach().requires_grad_(), text[:, 0].detach().requires_grad_()
    like_text, like_motion = (
        torch.softmax(t @ t.T / 0.05, 1).detach(),
        torch.softmax(m @ m.T / 0.05, 1).detach(),
    )
    cross = m @ t.T / 0.07
    (-(like_text * cross.log_softmax(1)).sum(1).mean() / 2 - (like_motion * cross.T.log_softmax(1)).sum(1).mean() / 2).backward()
    assert torch.allclose(motion.grad[:, 0], m.grad) and torch.allclose(text.grad[:, 0], t.grad)


def test_nothing_defined_is_no_loss() -> None:
    nothing, motion = torch.zeros(4, 3, dtype=torch.bool), vectors(4, 3, 5)
    assert losses.soft_part_contrast(motion, motion, nothing, 0.07, 0.05).item() == 0
    assert losses.part_direction_loss(motion[:, 0], motion[:, 1], motion, motion, nothing).item() == 0


def test_the_direction_is_its_plain_twin_and_skips_what_has_none() -> None:
    whole, caption, motion, text = (
        vectors(4, 5),
        vectors(4, 5, seed=1),
        vectors(4, 3, 5, seed=2),
        vectors(4, 3, 5, seed=3),
    )
    motion[0, 1] = whole[0]  # no difference, no direction
    found = []
    for m in range(4):
        for part in range(3):
            if DEFINED[m, part] and (m, part) != (0, 1):
                a, b = whole[m] - motion[m, part], caption[m] - text[m, part]
                found.append(1 - (a @ b / a.norm() / b.norm()).item())
    assert losses.part_direction_loss(whole, caption, motion, text, DEFINED).item() == pytest.approx(np.mean(found))


def test_the_mean_of_captions_by_motion() -> None:
    text, motion_idx = vectors(4, 5), torch.tensor([0, 1, 1, 0])
    expected = torch.stack([text[0] + text[3], text[1] + text[2]])
    assert torch.allclose(losses.mean_by_motion(text, motion_idx, 2), expected / expected.norm(dim=1, keepdim=True))


# ---- the tower


COLUMNS = features.feature_columns(2)


def tower(**values) -> PartTransformer:
    torch.manual_seed(0)
    return PartTransformer(helpers.config(**{"part_encoders": True} | values).motion, 2, COLUMNS).eval()


def batch(lengths=(24, 40, 31)) -> MotionBatch:
    return helpers.motion_batch(list(lengths), features=features.feature_width(2))


def test_the_columns_of_a_part_are_those_of_its_joints() -> None:
    named = [(name, joint) for name in ("position", "velocity") for joint in range(22) for _ in range(3)]
    named += [("root", None)] * 5 + [("rotation", joint) for joint in range(1, 22) for _ in range(6)] + [("relation", None)] * 21
    for part, joints in PARTS.items():
        wanted = [column for column, (name, joint) in enumerate(named) if joint in joints]
        assert sorted(features.part_columns(COLUMNS, part).tolist()) == wanted
    assert len(features.part_columns(features.feature_columns(1, rotations=False), "torso")) == 2 * 3 * len(PARTS["torso"])


def test_a_part_encoder_hears_of_its_own_part_alone() -> None:
    model, motions = tower(), batch()
    changed = motions.frames.clone()
    only = np.setdiff1d(features.part_columns(COLUMNS, "right_arm"), features.part_columns(COLUMNS, "left_arm"))
    only = np.setdiff1d(only, features.part_columns(COLUMNS, "torso"))
    changed[..., only] += 1
    with torch.no_grad():
        (_, before), (_, after) = (
            model.forward_parts(motions),
            model.forward_parts(MotionBatch(changed, motions.lengths)),
        )
    moved = (before[1] - after[1]).abs().amax(dim=(0, 2)) > 0
    assert moved.tolist() == [part == "right_arm" for part in PARTS]


def test_swapping_the_persons_changes_no_part_and_neither_does_padding() -> None:
    model, motions = tower(), batch()
    with torch.no_grad():
        whole, said = model.forward_parts(motions)
        swapped, said_swapped = model.forward_parts(MotionBatch(motions.frames.flip(2), motions.lengths))
        _, said_alone = model.forward_parts(MotionBatch(motions.frames[:1, :24], motions.lengths[:1]))
        assert torch.equal(model(motions), whole)
    assert torch.allclose(whole, swapped, atol=1e-5)
    for way in range(2):
        assert said[way].shape == (3, 5, model.part_dim)
        assert torch.allclose(said[way], said_swapped[way], atol=1e-5)
        assert torch.allclose(said[way][0], said_alone[way][0], atol=1e-5)


def test_part_encoders_drop_tokens_only_while_training() -> None:
    model, motions = tower(part_token_drop=0.5), batch()
    seen: list[int] = []
    model.backbone.blocks[0].register_forward_hook(lambda module, given, result: seen.append(given[1].real.shape[1]))
    with torch.no_grad():
        model.forward_parts(motions)
        model.forward_parts(MotionBatch(motions.frames, motions.lengths, torch.Generator().manual_seed(0)))
    count = 40 // 6
    assert seen == [
        count + 6,
        *[count + 1] * 5,
        count // 2 + 6,
        *[2 + 1] * 5,
    ]  # 6 patches, 3 after dropping, 2 for an encoder


@pytest.mark.parametrize("token_drop", [0.0, 0.5])
def test_part_encoders_hear_random_patches_of_each_motion_with_and_without_token_drop(
    token_drop: float,
) -> None:
    """With every patch saying which one it is, what encoders hear is from all over a motion, another draw each time, never padding."""
    model, lengths = tower(part_token_drop=0.5, token_drop=token_drop), (24, 48, 48)
    frames = (torch.arange(48.0) // model.patch)[None, :, None, None].expand(3, 48, 2, features.feature_width(2)).clone()
    frames[0, 24:] = frames[0, 23]
    heard: list[tuple] = []
    model._encode_parts = lambda patches, places, mask: heard.append((patches, places, mask)) or torch.zeros(3, 5, model.part_dim)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(60):
            model.forward_parts(MotionBatch(frames, torch.tensor(lengths), noise))
    kept = 8 // (4 if token_drop else 2)
    for patches, places, mask in heard:
        assert patches.shape[2] == places.shape[1] == mask.shape[1] == kept
        assert torch.equal(patches[..., 0], places[:, None].expand(3, 2, kept).to(patches.dtype))
        assert all(len(set(own.tolist())) == kept for own in places)
        assert (places[0][mask[0]] < 24 // model.patch).all() and mask[1:].all()
    assert {place for _, places, _ in heard for place in places[1].tolist()} == set(range(8))
    assert len({tuple(sorted(places[1].tolist())) for _, places, _ in heard}) > 5
    assert any(set(places[1].tolist()) != set(places[2].tolist()) for _, places, _ in heard)


def test_without_encoders_only_part_tokens_speak() -> None:
    model = tower(part_encoders=False)
    assert len(model.forward_parts(batch())[1]) == 1
    assert not hasattr(model, "adapters")


# ---- part texts


CAPTIONS = (("one waves the right arm",), ("someone walks", "the left leg kicks"), ("they stand",))


def data_of(tmp_path):
    return helpers.training_data(captions=CAPTIONS), tmp_path / "data"


def chosen(folder, **values):
    return helpers.config(data_dir=folder, work_dir=folder.parent / "work", use_gar=True, **values)


def write_gar(folder, entries):
    (folder / "texts").mkdir(parents=True)
    (folder / "texts" / "gar_train.json").write_text(json.dumps(entries))


def test_ids_in_any_form_find_their_motion_and_what_is_missing_is_undefined(tmp_path, capsys) -> None:
    data, folder = data_of(tmp_path)
    entries = [
        {"id": 0, "part_descriptions": {"torso": "bends"}},
        {"id": "2\n", "part_descriptions": {"left_leg": "kicks", "torso": "undefined"}},
    ]
    write_gar(folder, entries)
    found = part_texts.load_part_texts(chosen(folder), data)
    assert [{part: text for part, text in parts.items() if text} for parts in found] == [
        {"torso": "bends"},
        {},
        {"left_leg": "kicks"},
    ]
    assert "2 of 15 parts are described" in capsys.readouterr().out


def test_captions_that_name_a_part_tell_of_it(tmp_path) -> None:
    data, folder = data_of(tmp_path)
    found = part_texts.load_part_texts(chosen(folder, part_text="caption"), data)
    assert [sorted(part for part, text in parts.items() if text) for parts in found] == [
        ["right_arm"],
        ["left_leg"],
        [],
    ]


def test_a_file_that_describes_none_of_the_motions_is_a_fault(tmp_path) -> None:
    data, folder = data_of(tmp_path)
    write_gar(folder, [{"id": 77, "part_descriptions": {"torso": "bends"}}])
    with pytest.raises(
        DataError,
        match=r"gar_train\.json: no part of any training motion is described \(correct its ids",
    ):
        part_texts.load_part_texts(chosen(folder), data)
    with pytest.raises(DataError, match=r"gar_train\.json"):
        part_texts.load_part_texts(chosen(tmp_path / "elsewhere", part_text="gar"), data)


def told_of(root, fps):
    """What `part_texts.load_part_texts` says of the motions of a data folder at so many frames a second."""
    return part_texts.load_part_texts(chosen(root, part_text="motion", fps=fps), helpers.load(root, fps=fps))


def test_texts_that_are_kept_are_told_anew_at_another_frame_rate_and_by_other_rules(own_challenge, monkeypatch) -> None:
    first, slower = told_of(own_challenge, 30.0), told_of(own_challenge, 15.0)
    assert first != slower
    with monkeypatch.context() as patch:
        patch.setattr(phrases, "LIMITS", replace(phrases.LIMITS, above_head=9.0))
        lower = told_of(own_challenge, 30.0)
        assert any("above the head" in str(own) for own in first) and not any("above the head" in str(own) for own in lower)
    with monkeypatch.context() as patch:
        patch.setitem(phrases.MIN_AMPLITUDE, "up", 9.0)
        assert told_of(own_challenge, 30.0) not in (first, lower)
    monkeypatch.setattr(describer, "describe_training", None)  # nobody is asked again
    assert told_of(own_challenge, 30.0) == first and told_of(own_challenge, 15.0) == slower


def test_the_digest_tells_source_and_texts_apart_and_nothing_else(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "data"
    entry = {
        "id": 1,
        "caption": "someone bends",
        "part_descriptions": {"torso": "bends", "left_leg": "kicks"},
    }

    def digest(entries, name="gar_train.json", **values):
        (folder / "texts").mkdir(parents=True, exist_ok=True)
        (folder / "texts" / name).write_text(json.dumps(entries, indent=values.pop("indent", None)))
        return part_texts.part_texts_digest(chosen(folder, **values))

    motion = part_texts.part_texts_digest(chosen(folder))
    assert motion.startswith("motion ") and motion == part_texts.part_texts_digest(chosen(folder, part_text="motion"))
    assert motion != part_texts.part_texts_digest(chosen(folder, fps=20.0))
    first = digest([entry])
    assert first.startswith("gar ") and first == digest([entry | {"caption": "another"}], indent=2)
    assert first != digest([entry | {"part_descriptions": {"torso": "leans"}}])
    assert first == digest([entry])
    assert first != digest([entry | {"id": 2}], name="gar_val.json")
    assert part_texts.part_texts_digest(chosen(folder, part_text="motion")) == motion
    assert part_texts.part_texts_digest(chosen(folder, part_text="caption")) == "caption"
    monkeypatch.setattr(phrases, "LIMITS", replace(phrases.LIMITS, above_head=9.0))
    assert part_texts.part_texts_digest(chosen(folder, part_text="motion")) != motion
    (folder / "texts" / "gar_train.json").write_text("no JSON")
    assert part_texts.part_texts_digest(helpers.config(data_dir=folder)) is None  # a run without part texts does not look at them
    with pytest.raises(DataError, match=r"gar_train\.json: not JSON"):
        part_texts.part_texts_digest(chosen(folder))


def test_values_tuned_with_other_part_texts_are_left_aside_aloud(tmp_path) -> None:
    folder, best = tmp_path / "data", tmp_path / "best.json"
    config = chosen(folder, variant="sgar", tuned=str(best), folds_dir=tmp_path)
    files.write_json(tmp_path / "folds.json", {"data": "data-a", "hash": "folds-a"})
    belongs = tuned_values.tuning_identity(config, "data-a", "folds-a")
    confirmed = {"tuned_on": [0], "confirmed_on": [1]}
    files.write_json(best, {"values": {"lr": 0.01}, "belongs": belongs} | confirmed)
    assert tuned_values.find_tuned_values(config).values == {"lr": 0.01}
    write_gar(folder, [{"id": 0, "part_descriptions": {"torso": "bends"}}])
    values, told = (found := tuned_values.find_tuned_values(config)).values, found.message
    assert values == {} and f"left aside, it was made for part texts {belongs['part texts']}, here gar " in told
    older = {name: value for name, value in belongs.items() if name != "part texts"}
    files.write_json(best, {"values": {"lr": 0.01}, "belongs": older} | confirmed)
    assert tuned_values.find_tuned_values(config).values == {"lr": 0.01}  # of before they were kept: not compared
    plain = helpers.config(variant="sgar", folds_dir=tmp_path)
    assert tuned_values.tuning_identity(plain, "data-a", "folds-a") == older


# ---- the variant


def sgar(out_dir, name, **values) -> int:
    return train.main(["sgar", *helpers.train_flags(out_dir, name, **values)[1:]])


def test_the_variant_trains_from_the_gar_file_and_from_the_motions(tmp_path, capsys) -> None:
    assert sgar(tmp_path, "file", fold=0, epochs=1) == 0
    assert "part texts from" in (told := capsys.readouterr().out) and "gar_train.json" in told and "file: score" in told
    assert (
        sgar(
            tmp_path,
            "motions",
            fold=0,
            epochs=1,
            part_text="motion",
            lambda_direction=0.1,
            lambda_mix=0.5,
            part_encoders=True,
        )
        == 0
    )
    assert "part texts from the motions" in capsys.readouterr().out
    kept = torch.load(next((tmp_path / "file" / "fold0").glob("best_epoch*.pt")), weights_only=True)["model"]
    assert "motion_tower.part_tokens" in kept and "part_head.0.weight" in kept


def test_parts_change_what_is_learned_and_without_them_it_is_holistic(tmp_path) -> None:
    assert sgar(tmp_path, "with", fold=0, epochs=1) == 0
    assert sgar(tmp_path, "without", fold=0, epochs=1, no_use_gar=True, part_encoders=True) == 0
    assert helpers.run_training(tmp_path, "holistic", fold=0, epochs=1) == 0
    found = {name: np.load(tmp_path / name / "fold0" / "oof.npz")["motion"] for name in ("with", "without", "holistic")}
    assert not np.allclose(found["with"], found["without"])
    assert np.array_equal(found["without"], found["holistic"])


def test_without_part_texts_only_the_summary_token_goes_in() -> None:
    def encoder(**values) -> DualEncoder:
        torch.manual_seed(0)
        return DualEncoder(helpers.config(**values), 2, COLUMNS, helpers.TEXT_DIM).eval()

    parted = {"motion_tower": "part", "part_encoders": True}
    whole, without, told = encoder(), encoder(**parted), encoder(**parted, use_gar=True)
    without.load_state_dict(whole.state_dict())  # the same parameters, by name and shape
    told.load_state_dict(whole.state_dict(), strict=False)
    with torch.no_grad():
        same, other = without.encode_motions(batch()), told.encode_motions(batch())
        assert torch.equal(same, whole.encode_motions(batch()))
    assert not torch.allclose(same, other, atol=1e-3)  # part tokens are attended to and pooled


def test_part_texts_that_changed_are_told_before_a_run_goes_on(own_challenge, tmp_path, capsys) -> None:
    file, again = (
        own_challenge / "texts" / "gar_train.json",
        {"data": own_challenge, "fold": 0, "epochs": 1, "resume": "auto"},
    )
    assert sgar(tmp_path, "one", **again) == 0
    assert sgar(tmp_path, "one", **again) == 0
    assert "finished before: fold0" in capsys.readouterr().out
    entries = json.loads(file.read_text())
    entries[0]["part_descriptions"]["torso"] = "the body sways like a reed"
    file.write_text(json.dumps(entries))
    assert sgar(tmp_path, "one", **again) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'one'}: was trained on other part texts (gar ")
    assert ", now gar " in line and line.endswith("(give another --run_name)")


def test_a_tower_without_parts_is_refused_by_name(tmp_path, capsys) -> None:
    assert train.main([*helpers.train_flags(tmp_path, "whole", fold=0), "--use_gar"]) == 1
    assert "error: --use_gar: transformer knows no parts" in capsys.readouterr().err


def test_both_ways_to_tell_parts_count_alike() -> None:
    config, _ = cli.parse_train(["sgar"], None)
    motion, caption = vectors(4, 5), vectors(4, 5, seed=1)
    ways, text = [vectors(4, 3, 5, seed=2), vectors(4, 3, 5, seed=3)], vectors(4, 3, 5, seed=4)
    soft = [losses.soft_part_contrast(way, text, DEFINED, config.loss.tau, config.parts.tau_prime).item() for way in ways]
    straight = [losses.part_direction_loss(motion, caption, way, text, DEFINED).item() for way in ways]
    ways = torch.stack(ways, dim=1)
    assert objective.part_contrast_loss(ways, text, DEFINED, config).item() == pytest.approx(np.mean(soft))
    assert objective.part_direction_term(motion, caption, ways, text, DEFINED).item() == pytest.approx(np.mean(straight))


# ---- the mixture


def drawn_mixture(seed, size=5, ways=2, dim=4):
    """What a model might say of a batch and its mixture, 2 or 3 parts of each motion those of another, some parts undefined."""
    rng = np.random.default_rng(seed)
    said = {
        "mixed": vectors(size, dim, seed=seed),
        "mixed_parts": vectors(size, ways, len(PARTS), dim, seed=seed + 100),
    }
    said |= {
        "part_text": vectors(size, len(PARTS), dim, seed=seed + 200),
        "motion": torch.empty(size, 0),
        "caption": torch.empty(0, 0),
    }
    other = torch.from_numpy((np.arange(size) + rng.integers(1, size)) % size)
    counts = np.resize([2, 3], size)
    replaced = torch.from_numpy(np.stack([rng.permutation(len(PARTS)) < count for count in counts]))
    assert set(replaced.sum(dim=1).tolist()) == {2, 3}
    defined = torch.from_numpy(rng.random((size, len(PARTS))) < 0.7)
    return (
        objective.BatchEmbeddings(**said, donor_idx=other, replaced=replaced),
        vectors(size, dim, seed=seed + 300),
        defined,
    )


def mixture_twin(told, text, defined, scale, config):
    """L_global_mix + lambda_part * L_part_mix of DESIGN.md, said in loops."""
    said, other, replaced = (
        {name: own.numpy() for name, own in told.vectors().items()},
        told.donor_idx.tolist(),
        told.replaced.tolist(),
    )
    text, size = text.numpy(), len(other)
    target = []
    for host in range(size):
        lam = sum(replaced[host]) / 5
        mean = lam * text[other[host]] + (1 - lam) * text[host]
        target.append(mean / np.sqrt(mean @ mean))
    whole = 0.0
    for m in range(size):
        to_motion = softmax(np.array([scale * (target[m] @ said["mixed"][n]) for n in range(size)]))
        to_text = softmax(np.array([scale * (target[n] @ said["mixed"][m]) for n in range(size)]))
        whole -= (np.log(to_motion[m]) + np.log(to_text[m])) / size / 2
    giver = [[other[m] if replaced[m][part] else m for part in range(5)] for m in range(size)]
    part_text = np.array([[said["part_text"][giver[m][part], part] for part in range(5)] for m in range(size)])
    known = [[bool(defined[giver[m][part], part]) for part in range(5)] for m in range(size)]
    ways = [said["mixed_parts"][:, way] for way in range(said["mixed_parts"].shape[1])]
    parts = np.mean([np.mean(soft_twin(way, part_text, known, config.loss.tau, config.parts.tau_prime)) for way in ways])
    return whole + config.parts.lambda_part * parts


MIXED = helpers.config(use_gar=True, lambda_part=0.7, tau=0.2, tau_prime=0.1)
SCALE = torch.tensor(5.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_mixture_loss_is_its_plain_twin(seed) -> None:
    told, text, defined = drawn_mixture(seed)
    found = objective.mixture_loss(told, SCALE, text, defined, MIXED).item()
    assert found == pytest.approx(mixture_twin(told, text, defined, SCALE.item(), MIXED))


def test_an_undefined_part_changes_nothing_in_a_mixture() -> None:
    told, text, defined = drawn_mixture(0)
    own = torch.arange(5)[:, None].expand(5, 5)
    moved = defined.gather(0, torch.where(told.replaced, told.other[:, None], own))  # masks move along with texts
    assert not torch.equal(moved, defined) and not moved.all()
    loss = objective.mixture_loss(told, SCALE, text, defined, MIXED)

    def spoilt(texts_where, parts_where):
        said = dict(told.vectors)
        said["part_text"] = torch.where(texts_where[..., None], vectors(5, 5, 4, seed=50), said["part_text"])
        said["mixed_parts"] = torch.where(parts_where[:, None, :, None], vectors(5, 2, 5, 4, seed=51), said["mixed_parts"])
        return objective.mixture_loss(replace(told, vectors=said), SCALE, text, defined, MIXED)

    none = torch.zeros(5, 5, dtype=torch.bool)
    assert torch.equal(spoilt(~defined, ~moved), loss)
    assert not torch.allclose(spoilt(defined, none), loss) and not torch.allclose(spoilt(none, moved), loss)
    nothing = objective.mixture_loss(told, SCALE, text, none, MIXED)
    assert torch.equal(
        nothing,
        objective.mixture_loss(told, SCALE, text, defined, helpers.config(use_gar=True, lambda_part=0.0)),
    )


def test_the_order_of_a_batch_means_nothing_to_its_mixture() -> None:
    told, text, defined = drawn_mixture(1)
    order = torch.tensor([3, 0, 4, 1, 2])
    said = {name: own[order] for name, own in told.vectors.items()}
    moved = objective.BatchEmbeddings(said, order.argsort()[told.other[order]], told.replaced[order])
    loss = objective.mixture_loss(told, SCALE, text, defined, MIXED).item()
    assert objective.mixture_loss(moved, SCALE, text[order], defined[order], MIXED).item() == pytest.approx(loss)
    unmoved = replace(moved, other=told.other[order])
    assert objective.mixture_loss(unmoved, SCALE, text[order], defined[order], MIXED).item() != pytest.approx(loss, rel=1e-3)
