"""The contrastive loss against a plain twin, and what must not change it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from motret.training.losses import has_equivalent_caption, multi_positive_info_nce


def vectors(count, seed, dim=5):
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def twin(text, motion, motion_idx, scale, excluded, smoothing):
    """Choice 4 of DESIGN.md, said in loops."""
    captions, motions = len(text), len(motion)
    logit = scale * np.array(
        [[text[c] @ motion[m] for m in range(motions)] for c in range(captions)]
    )
    count = [sum(motion_idx[c] == m for c in range(captions)) for m in range(motions)]
    to_motion = to_caption = 0.0
    for c in range(captions):
        own = motion_idx[c]
        rivals = [m for m in range(motions) if m == own or not excluded[c][m]]
        log_p = {m: logit[c][m] - np.log(sum(np.exp(logit[c][n]) for n in rivals)) for m in rivals}
        smooth = (1 - smoothing) * log_p[own] + smoothing * sum(log_p.values()) / len(rivals)
        to_motion -= smooth / count[own]
        foreign = [k for k in range(captions) if motion_idx[k] != own and not excluded[k][own]]
        below = np.exp(logit[c][own]) + sum(np.exp(logit[k][own]) for k in foreign)
        to_caption -= (logit[c][own] - np.log(below)) / count[own]
    return (to_motion + to_caption) / motions / 2


@st.composite
def batch(draw):
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    motion_idx = draw(st.permutations([m for m, count in enumerate(counts) for _ in range(count)]))
    size = (len(motion_idx), len(counts))
    excluded = np.random.default_rng(draw(st.integers(0, 99))).random(size) < draw(
        st.sampled_from([0.0, 0.3, 1.0])
    )
    return np.array(motion_idx), excluded, draw(st.integers(0, 999))


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
@given(batch(), st.sampled_from([0.0, 0.2]), st.sampled_from([1.0, 14.0]))
def test_the_loss_is_what_the_design_says(drawn, smoothing, scale):
    motion_idx, excluded, seed = drawn
    text, motion = vectors(excluded.shape[0], seed), vectors(excluded.shape[1], seed + 1)
    result = multi_positive_info_nce(
        text,
        motion,
        torch.tensor(motion_idx),
        torch.tensor(scale),
        torch.from_numpy(excluded),
        smoothing,
    )
    assert float(result) == pytest.approx(
        twin(text.numpy(), motion.numpy(), motion_idx, scale, excluded, smoothing), rel=1e-6
    )


def test_with_one_caption_each_it_is_the_usual_symmetric_info_nce():
    text, motion = vectors(6, 0), vectors(6, 1)
    logits, right = text @ motion.T * 10, torch.arange(6)
    usual = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    assert multi_positive_info_nce(text, motion, right, torch.tensor(10.0)) == pytest.approx(
        float(usual)
    )
    smooth = multi_positive_info_nce(text, motion, right, torch.tensor(10.0), label_smoothing=0.1)
    usual = (
        F.cross_entropy(logits, right, label_smoothing=0.1) + F.cross_entropy(logits.T, right)
    ) / 2
    assert smooth == pytest.approx(float(usual))


def test_the_order_of_a_batch_means_nothing():
    rng = np.random.default_rng(0)
    motion_idx = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    text, motion, excluded = (
        vectors(7, 2),
        vectors(4, 3),
        torch.from_numpy(rng.random((7, 4)) < 0.3),
    )
    scale = torch.tensor(9.0)
    plain = multi_positive_info_nce(text, motion, motion_idx, scale, excluded, 0.1)
    captions, motions = torch.from_numpy(rng.permutation(7)), torch.from_numpy(rng.permutation(4))
    moved_owner = motions.argsort()[motion_idx[captions]]
    moved = multi_positive_info_nce(
        text[captions], motion[motions], moved_owner, scale, excluded[captions][:, motions], 0.1
    )
    assert moved == pytest.approx(float(plain), abs=1e-12)
    assert not torch.equal(moved_owner, motion_idx)


def test_an_excluded_pair_has_no_influence():
    """Caption 0 is motion 0's; what it says of motion 1 is left out, so nothing pulls or pushes the
    two."""
    text, motion_idx = torch.eye(4, dtype=torch.float64)[:3], torch.tensor([0, 1, 2])
    motion = torch.eye(4, dtype=torch.float64)[:3].clone().requires_grad_()
    excluded = torch.zeros(3, 3, dtype=torch.bool)
    excluded[0, 1] = True
    multi_positive_info_nce(text, motion, motion_idx, torch.tensor(5.0), excluded, 0.1).backward()
    at = (
        motion.grad @ text.T
    )  # (motion, caption): the texts are orthogonal, so this is d loss / d similarity
    assert at[1, 0] == 0
    assert (at.T[~excluded] != 0).all()


@pytest.mark.parametrize("motions", [1, 3])
def test_with_no_negatives_left_the_loss_and_its_gradient_are_zero(motions):
    text, motion = vectors(2 * motions, 4).requires_grad_(), vectors(motions, 5).requires_grad_()
    motion_idx = torch.arange(motions).repeat_interleave(2)
    loss = multi_positive_info_nce(
        text,
        motion,
        motion_idx,
        torch.tensor(9.0),
        torch.ones(2 * motions, motions, dtype=torch.bool),
    )
    loss.backward()
    assert loss.item() == 0
    assert (text.grad == 0).all() and (motion.grad == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_is_no_negative_when_its_caption_is_as_good_as_an_own_one(seed):
    rng = np.random.default_rng(seed)
    motion_idx = np.array([0, 0, 1, 2, 2, 3])
    similar = rng.random((6, 6)) < 0.2
    similar = similar | similar.T | np.eye(6, dtype=bool)
    result = has_equivalent_caption(
        torch.from_numpy(similar), torch.from_numpy(motion_idx), 4
    ).numpy()
    loops = [
        [any(similar[c][k] for k in range(6) if motion_idx[k] == m) for m in range(4)]
        for c in range(6)
    ]
    assert (result == np.array(loops)).all()
    assert result.any(axis=0).all() and not result.all()
