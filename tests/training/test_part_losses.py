"""Losses of the parts of the body, each against a twin that is written in loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import helpers
from motret.config import cli
from motret.skeleton import PARTS
from motret.training import losses, objective


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
                target = softmax(
                    np.array([guide[m, part] @ guide[n, part] for n in rows]) / tau_prime
                )
                said = softmax(np.array([ask[m, part] @ answer[n, part] for n in rows]) / tau)
                loss -= (target * np.log(said)).sum() / len(rows) / 2
        found.append(loss)
    return found


DEFINED = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)


def test_the_soft_part_contrast_is_its_plain_twin_as_mean_or_sum() -> None:
    motion, text = vectors(4, 3, 5), vectors(4, 3, 5, seed=1)
    found = soft_twin(motion.numpy(), text.numpy(), DEFINED.numpy(), 0.07, 0.05)
    assert len(found) == 2  # the third part is described once
    assert losses.soft_part_contrast(motion, text, DEFINED, 0.07, 0.05).item() == pytest.approx(
        np.mean(found)
    )
    assert losses.soft_part_contrast(
        motion, text, DEFINED, 0.07, 0.05, "sum"
    ).item() == pytest.approx(sum(found))


def test_an_undefined_part_changes_nothing_and_the_order_of_motions_neither() -> None:
    motion, text = vectors(4, 3, 5), vectors(4, 3, 5, seed=1)
    whole, caption = vectors(4, 5, seed=2), vectors(4, 5, seed=3)
    other_motion, other_text = motion.clone(), text.clone()
    other_motion[~DEFINED] = other_motion[~DEFINED].flip(0)
    other_text[~DEFINED] *= -1
    order = torch.tensor([2, 0, 3, 1])
    soft = losses.soft_part_contrast(motion, text, DEFINED, 0.07, 0.05)
    straight = losses.part_direction_loss(whole, caption, motion, text, DEFINED)
    assert torch.equal(
        losses.soft_part_contrast(other_motion, other_text, DEFINED, 0.07, 0.05), soft
    )
    assert torch.equal(
        losses.part_direction_loss(whole, caption, other_motion, other_text, DEFINED), straight
    )
    assert losses.soft_part_contrast(
        motion[order], text[order], DEFINED[order], 0.07, 0.05
    ).item() == pytest.approx(soft.item())
    assert losses.part_direction_loss(
        whole[order], caption[order], motion[order], text[order], DEFINED[order]
    ).item() == pytest.approx(straight.item())


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
    (
        -(like_text * cross.log_softmax(1)).sum(1).mean() / 2
        - (like_motion * cross.T.log_softmax(1)).sum(1).mean() / 2
    ).backward()
    assert torch.allclose(motion.grad[:, 0], m.grad) and torch.allclose(text.grad[:, 0], t.grad)


def test_nothing_defined_is_no_loss() -> None:
    nothing, motion = torch.zeros(4, 3, dtype=torch.bool), vectors(4, 3, 5)
    assert losses.soft_part_contrast(motion, motion, nothing, 0.07, 0.05).item() == 0
    assert (
        losses.part_direction_loss(motion[:, 0], motion[:, 1], motion, motion, nothing).item() == 0
    )


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
    assert losses.part_direction_loss(
        whole, caption, motion, text, DEFINED
    ).item() == pytest.approx(np.mean(found))


def test_the_mean_of_captions_by_motion() -> None:
    text, motion_idx = vectors(4, 5), torch.tensor([0, 1, 1, 0])
    expected = torch.stack([text[0] + text[3], text[1] + text[2]])
    assert torch.allclose(
        losses.mean_by_motion(text, motion_idx, 2), expected / expected.norm(dim=1, keepdim=True)
    )


def test_both_ways_to_tell_parts_count_alike() -> None:
    config, _ = cli.parse_train(["sgar"], None)
    motion, caption = vectors(4, 5), vectors(4, 5, seed=1)
    ways, text = [vectors(4, 3, 5, seed=2), vectors(4, 3, 5, seed=3)], vectors(4, 3, 5, seed=4)
    soft = [
        losses.soft_part_contrast(
            way, text, DEFINED, config.loss.tau, config.parts.tau_prime
        ).item()
        for way in ways
    ]
    straight = [
        losses.part_direction_loss(motion, caption, way, text, DEFINED).item() for way in ways
    ]
    ways = torch.stack(ways, dim=1)
    assert objective.part_contrast_loss(ways, text, DEFINED, config).item() == pytest.approx(
        np.mean(soft)
    )
    assert objective.part_direction_term(
        motion, caption, ways, text, DEFINED
    ).item() == pytest.approx(np.mean(straight))


# ---- motions with parts of others


def sample_mixture(seed, size=5, n_views=2, dim=4):
    """Embeddings of a batch with mixed motions, text vectors, and which parts have a text.

    2 or 3 parts of each motion are those of another.
    """
    rng = np.random.default_rng(seed)
    donor_idx = (np.arange(size) + rng.integers(1, size)) % size
    counts = np.resize([2, 3], size)
    replaced = np.stack([rng.permutation(len(PARTS)) < count for count in counts])
    defined = torch.from_numpy(rng.random((size, len(PARTS))) < 0.7)
    embeddings = objective.BatchEmbeddings(
        motion=torch.empty(size, 0),
        caption=torch.empty(0, 0),
        mixed=vectors(size, dim, seed=seed),
        mixed_parts=vectors(size, n_views, len(PARTS), dim, seed=seed + 100),
        part_text=vectors(size, len(PARTS), dim, seed=seed + 200),
        donor_idx=torch.from_numpy(donor_idx),
        replaced=torch.from_numpy(replaced),
    )
    return embeddings, vectors(size, dim, seed=seed + 300), defined


def mixture_twin(embeddings, text, defined, scale, config):
    """L_global_mix + lambda_part * L_part_mix, in loops."""
    mixed, part_text = embeddings.mixed.numpy(), embeddings.part_text.numpy()
    mixed_parts = embeddings.mixed_parts.numpy()
    donors, replaced = embeddings.donor_idx.tolist(), embeddings.replaced.tolist()
    text, size = text.numpy(), len(donors)
    target = []
    for host in range(size):
        weight = sum(replaced[host]) / 5
        mean = weight * text[donors[host]] + (1 - weight) * text[host]
        target.append(mean / np.sqrt(mean @ mean))
    loss = 0.0
    for m in range(size):
        to_motion = softmax(np.array([scale * (target[m] @ mixed[n]) for n in range(size)]))
        to_text = softmax(np.array([scale * (target[n] @ mixed[m]) for n in range(size)]))
        loss -= (np.log(to_motion[m]) + np.log(to_text[m])) / size / 2
    source = [[donors[m] if replaced[m][part] else m for part in range(5)] for m in range(size)]
    text_of = np.array([[part_text[source[m][p], p] for p in range(5)] for m in range(size)])
    has_text = [[bool(defined[source[m][p], p]) for p in range(5)] for m in range(size)]
    tau, tau_prime = config.loss.tau, config.parts.tau_prime
    part_losses = [
        np.mean(soft_twin(mixed_parts[:, view], text_of, has_text, tau, tau_prime))
        for view in range(mixed_parts.shape[1])
    ]
    return loss + config.parts.lambda_part * np.mean(part_losses)


MIXED = helpers.config(use_gar=True, lambda_part=0.7, tau=0.2, tau_prime=0.1)
SCALE = torch.tensor(5.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_mixture_loss_is_its_plain_twin(seed) -> None:
    embeddings, text, defined = sample_mixture(seed)
    loss = objective.mixture_loss(embeddings, SCALE, text, defined, MIXED).item()
    assert loss == pytest.approx(mixture_twin(embeddings, text, defined, SCALE.item(), MIXED))


def test_an_undefined_part_changes_nothing_in_a_mixture() -> None:
    embeddings, text, defined = sample_mixture(0)
    own = torch.arange(5)[:, None].expand(5, 5)
    source = torch.where(embeddings.replaced, embeddings.donor_idx[:, None], own)
    mixed_defined = defined.gather(0, source)  # masks move along with texts
    assert not torch.equal(mixed_defined, defined) and not mixed_defined.all()
    loss = objective.mixture_loss(embeddings, SCALE, text, defined, MIXED)

    def with_noise(texts, parts):
        part_text = torch.where(texts[..., None], vectors(5, 5, 4, seed=50), embeddings.part_text)
        noise = vectors(5, 2, 5, 4, seed=51)
        mixed_parts = torch.where(parts[:, None, :, None], noise, embeddings.mixed_parts)
        changed = replace(embeddings, part_text=part_text, mixed_parts=mixed_parts)
        return objective.mixture_loss(changed, SCALE, text, defined, MIXED)

    none = torch.zeros(5, 5, dtype=torch.bool)
    assert torch.equal(with_noise(~defined, ~mixed_defined), loss)
    assert not torch.allclose(with_noise(defined, none), loss)
    assert not torch.allclose(with_noise(none, mixed_defined), loss)
    without = helpers.config(use_gar=True, lambda_part=0.0)
    assert torch.equal(
        objective.mixture_loss(embeddings, SCALE, text, none, MIXED),
        objective.mixture_loss(embeddings, SCALE, text, defined, without),
    )


def test_the_order_of_a_batch_means_nothing_to_its_mixture() -> None:
    embeddings, text, defined = sample_mixture(1)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = replace(
        embeddings,
        mixed=embeddings.mixed[order],
        mixed_parts=embeddings.mixed_parts[order],
        part_text=embeddings.part_text[order],
        replaced=embeddings.replaced[order],
        donor_idx=order.argsort()[embeddings.donor_idx[order]],
    )
    loss = objective.mixture_loss(embeddings, SCALE, text, defined, MIXED).item()
    again = objective.mixture_loss(shuffled, SCALE, text[order], defined[order], MIXED).item()
    assert again == pytest.approx(loss)
    unmoved = replace(shuffled, donor_idx=embeddings.donor_idx[order])
    other = objective.mixture_loss(unmoved, SCALE, text[order], defined[order], MIXED).item()
    assert other != pytest.approx(loss, rel=1e-3)
