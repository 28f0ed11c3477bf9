"""A matcher learns which words go with which tokens."""

import numpy as np
import pytest
import torch

from motret.config.scripts import RerankConfig
from motret.models.token_matcher import Sequences, TokenMatcher
from motret.rerank import words as word_scores
from motret.rerank.words import MatcherData
from motret.training import losses

CPU = torch.device("cpu")
DEEDS = ("waves", "bows", "jumps", "sits", "runs", "turns")


def made_data(motions=60, seed=0):
    """Each motion has two deeds, one token for each; its two captions name one each, or both."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    word, token = torch.eye(8)[: len(DEEDS)], torch.eye(9)[1 : len(DEEDS) + 1]
    words, tokens, captions = [], [], []
    for _ in range(motions):
        one, two = rng.choice(len(DEEDS), 2, replace=False)
        noise = 0.1 * torch.randn(4, 9, generator=generator)
        tokens.append(torch.stack([token[one], token[two], token[one], token[two]]) + noise)
        captions.append([f"{DEEDS[one]} then {DEEDS[two]}", DEEDS[one]])
        words += [torch.stack([word[one], word[two]]), word[[one]]]
    return MatcherData.of(Sequences.of(words), Sequences.of(tokens), captions)


def config(**values):
    small = {"batch_size": 20, "epochs": 80, "hidden": 16, "dim": 8, "lr": 5e-3}
    return RerankConfig(method="words", **(small | values)).scorer


def test_the_motion_of_each_caption_and_equal_texts_are_known():
    captions = [["A wave.", "a bow"], ["a wave"]]
    one = Sequences.of([torch.zeros(1, 2)] * 3)
    data = MatcherData.of(one, Sequences.of([torch.zeros(1, 2)] * 2), captions)
    assert data.motion_idx.tolist() == [0, 0, 1]
    assert data.text_idx.tolist() == [0, 1, 0]


def test_the_loss_is_info_nce_where_equal_captions_are_no_negatives():
    data, batch = made_data(), torch.tensor([7, 3, 11, 30])
    torch.manual_seed(1)
    matcher = TokenMatcher((8, 9), 8, 16, 0.0)
    generator = torch.Generator().manual_seed(0)
    loss = word_scores.matching_loss(matcher, data, batch, 0.0, generator)
    caption_idx = [c for c in range(120) if c // 2 in batch]
    scores = matcher(data.words.flat(torch.tensor(caption_idx)), data.tokens.padded(batch))
    motion_idx = torch.tensor([batch.tolist().index(c // 2) for c in caption_idx])
    excluded = torch.tensor(
        [
            [any(data.text_idx[c] == data.text_idx[2 * int(m) + k] for k in (0, 1)) for m in batch]
            for c in caption_idx
        ]
    )
    expected = losses.multi_positive_info_nce(
        scores, torch.eye(4), motion_idx, matcher.logit_scale(), excluded
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_matcher_finds_motions_it_has_not_seen():
    matcher = word_scores.train_matcher(made_data(), config(), 0, CPU, "test")
    unseen = made_data(40, seed=1)
    scores = word_scores.score_pairs(matcher, unseen.words, unseen.tokens)
    right = scores[np.arange(80), unseen.motion_idx.numpy()]
    assert scores.shape == (80, 40) and scores.dtype == np.float32
    rank = (scores > right[:, None]).sum(axis=1)
    assert rank[::2].mean() < 4  # of 40; other motions do the same two deeds
    assert rank[1::2].mean() < 10  # a third of all do the one deed


def test_the_same_seed_gives_the_same_matcher():
    twice = [
        word_scores.train_matcher(made_data(), config(epochs=1), 3, CPU, "test").state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(twice[0][name], twice[1][name]) for name in twice[0])
