"""Late interaction: each word of a caption takes the motion token that fits it best."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from motret.models.token_matcher import Sequences, TokenMatcher


def sequences(lengths, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, dim, generator=generator).half() for length in lengths]


@pytest.fixture
def matcher():
    torch.manual_seed(0)
    return TokenMatcher((6, 5), dim=4, hidden=8, dropout=0.0).eval()


def test_sequences_come_back_in_the_order_they_are_asked_for():
    each = sequences([3, 1, 2], 5, 0)
    packed = Sequences.of(each)
    flat, owner_idx = packed.flat(torch.tensor([2, 0]))
    assert torch.equal(flat, torch.cat([each[2], each[0]]).float())
    assert owner_idx.tolist() == [0, 0, 1, 1, 1]
    some = packed.select(torch.tensor([1, 2]))
    assert some.lengths.tolist() == [1, 2]
    assert torch.equal(some.vectors, torch.cat([each[1], each[2]]))


def test_padding_is_marked():
    each = sequences([3, 1], 5, 0)
    vectors, real = Sequences.of(each).padded(torch.tensor([1, 0]))
    assert real.tolist() == [[True, False, False], [True, True, True]]
    assert torch.equal(vectors[0, :1], each[1].float())
    assert torch.equal(vectors[1], each[0].float())


def test_a_part_of_each_sequence_is_left_out_at_random_but_never_all():
    each = sequences([8, 1, 5], 5, 0)
    generator = torch.Generator().manual_seed(0)
    vectors, real = Sequences.of(each).padded(torch.arange(3), 0.5, generator)
    assert real.sum(dim=1).tolist() == [4, 1, 3]
    for kept, mask, whole in zip(vectors, real, each, strict=True):
        of_whole = {tuple(row) for row in whole.float().tolist()}
        rows = [tuple(row) for row in kept[mask].tolist()]
        assert set(rows) <= of_whole and len(set(rows)) == len(rows)


def test_the_score_is_the_weighted_mean_of_the_best_tokens(matcher):
    words, tokens = sequences([2, 4], 6, 1), sequences([3, 1, 5], 5, 2)
    with torch.no_grad():
        scores = matcher(
            Sequences.of(words).flat(torch.arange(2)), Sequences.of(tokens).padded(torch.arange(3))
        )
        for c, states in enumerate(words):
            weight = matcher.word_weight(states.float())[:, 0].exp().numpy()
            word = F.normalize(matcher.word_head(states.float()), dim=-1).numpy()
            for m, vectors in enumerate(tokens):
                token = F.normalize(matcher.token_head(vectors.float()), dim=-1).numpy()
                best = [max(float(w @ t) for t in token) for w in word]
                expected = np.average(best, weights=weight)
                assert float(scores[c, m]) == pytest.approx(expected, abs=1e-5)


def test_a_score_depends_neither_on_the_other_captions_nor_on_the_pool(matcher):
    words, tokens = Sequences.of(sequences([2, 4], 6, 1)), Sequences.of(sequences([3, 1], 5, 2))
    with torch.no_grad():
        together = matcher(words.flat(torch.arange(2)), tokens.padded(torch.arange(2)))
        alone = matcher(words.flat(torch.tensor([1])), tokens.padded(torch.tensor([1])))
    assert float(alone) == pytest.approx(float(together[1, 1]), abs=1e-6)
