"""A caption model learns how likely captions are, given motions."""

import numpy as np
import pytest
import torch

from motret.config.scripts import RerankConfig
from motret.errors import ConfigError
from motret.models.caption_model import END, PAD, START, UNKNOWN
from motret.models.token_matcher import Sequences
from motret.rerank import likelihood
from motret.rerank.fold_model import TrainingTokens
from motret.rerank.likelihood import LikelihoodScorer, Vocabulary

DEEDS = ("waves", "bows", "jumps", "sits", "runs", "turns")


def made_motions(count=80, seed=0):
    """Two captions and the tokens of each motion: one person does one deed, the other another."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    token = torch.eye(8)[: len(DEEDS)]
    captions, tokens = [], []
    for _ in range(count):
        one, two = rng.choice(len(DEEDS), 2, replace=False)
        noise = 0.1 * torch.randn(6, 8, generator=generator)
        tokens.append(torch.stack([token[one]] * 3 + [token[two]] * 3) + noise)
        first, second = DEEDS[one], DEEDS[two]
        captions.append([f"one {first}, the other {second}", f"one {second}, the other {first}"])
    return captions, Sequences.of(tokens)


def scorer(epochs=40, seed=0, captions=None, tokens=None, **values):
    if captions is None:
        captions, tokens = made_motions()
    settings = RerankConfig(epochs=epochs, dim=16, batch_size=16, lr=1e-2, **values).scorer
    training = TrainingTokens(captions, tokens, None, torch.device("cpu"), "test")
    return LikelihoodScorer.train(training, settings, seed)


def test_the_vocabulary_has_the_words_that_captions_share():
    vocabulary = Vocabulary.of(["One waves.", "one bows", "WAVES"])
    assert vocabulary.words == ("one", "waves") and vocabulary.size == 6
    rows = vocabulary.encode(["one waves", "one jumps wildly"])
    one, waves = UNKNOWN + 1, UNKNOWN + 2
    assert rows.tolist() == [
        [START, one, waves, END, PAD],
        [START, one, UNKNOWN, UNKNOWN, END],
    ]
    assert vocabulary.encode(["one " * 500]).shape == (1, likelihood.MAX_WORDS + 2)
    assert vocabulary.encode([""]).tolist() == [[START, END]]


def test_the_likelihood_is_the_product_of_that_of_each_word():
    trained = scorer(epochs=2)
    captions, tokens = made_motions(5, seed=1)
    flat = [caption for of_motion in captions for caption in of_motion] + ["one dances", "one"]
    scores = likelihood.log_likelihood(trained.model, trained.vocabulary.encode(flat), tokens)
    number = trained.vocabulary.number
    for row, caption in enumerate(flat):
        for column in range(5):
            motion = trained.model.read_motions(
                tokens.padded_with_positions(torch.tensor([column])), torch.tensor([False])
            )
            before, total = [START], 0.0
            for word in [*caption.replace(",", "").split(), None]:
                target = END if word is None else number.get(word, UNKNOWN)
                states = trained.model.read_words(torch.tensor([before]))
                log_prob = trained.model(states, motion)[0, -1].log_softmax(0)
                total += 0.0 if target == UNKNOWN else log_prob[target].item()
                before.append(target)
            assert scores[row, column] == pytest.approx(total, abs=1e-4)
    centred = trained.score(flat, tokens)
    assert np.allclose(centred, scores - scores.mean(axis=1, keepdims=True), atol=1e-5)


def test_it_finds_motions_it_has_not_seen():
    trained = scorer()
    captions, tokens = made_motions(40, seed=1)
    scores = trained.score([texts[0] for texts in captions], tokens)
    right = scores[np.arange(40), np.arange(40)]
    assert ((scores > right[:, None] + 1e-3).sum(axis=1)).mean() < 4  # others do the same deeds


def test_the_order_of_the_persons_hardly_counts():
    trained = scorer()
    captions, tokens = made_motions(20, seed=2)
    swapped = Sequences(
        tokens.vectors.unflatten(0, (20, 2, 3)).flip(1).flatten(0, 2), tokens.lengths
    )
    flat = [texts[0] for texts in captions]
    one, two = (trained.score(flat, each) for each in (tokens, swapped))
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9


def test_a_token_keeps_its_person_when_others_are_left_out():
    model = scorer(epochs=1).model
    _, tokens = made_motions(3, seed=1)
    motions, swap = torch.arange(3), torch.tensor([False, True, False])
    whole, _ = model.read_motions(tokens.padded_with_positions(motions), swap)
    dropped = tokens.padded_with_positions(motions, 0.5, torch.Generator().manual_seed(0))
    states, real = model.read_motions(dropped, swap)
    for motion in range(3):
        nearest = torch.cdist(states[motion, real[motion]], whole[motion]).amin(dim=1)
        assert real[motion].sum() == 3 and nearest.max() < 1e-5


def test_a_caption_has_the_same_scores_beside_others():
    trained = scorer(epochs=1)
    captions, tokens = made_motions(30, seed=1)
    flat = [caption for of_motion in captions for caption in of_motion]
    together = trained.score(flat, tokens)
    alone = np.concatenate([trained.score([caption], tokens) for caption in flat])
    assert np.allclose(together, alone, atol=1e-4)


def test_the_same_seed_gives_the_same_model_and_a_checkpoint_keeps_it():
    one, two, three = scorer(1, 3), scorer(1, 3), scorer(1, 4)
    weights = [each.model.state_dict() for each in (one, two, three)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    settings = RerankConfig(dim=16).scorer
    again = LikelihoodScorer.from_content(one.content(), settings, torch.device("cpu"))
    _, tokens = made_motions(4)
    assert np.array_equal(again.score(["one waves"], tokens), one.score(["one waves"], tokens))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 6}, "--dim: is 6 (give a multiple of 4"),
        ({"gallery": 8}, "--gallery: is 8 (give 32 or more)"),
        ({"epochs": 0}, "--epochs: is 0 (give 1 or more)"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(values, message):
    with pytest.raises(ConfigError) as caught:
        RerankConfig(**values)
    assert message in str(caught.value)


def test_each_method_has_defaults_of_its_own():
    assert RerankConfig().scorer.gallery == 128
    assert RerankConfig(method="words").scorer.gallery == 0
    assert RerankConfig(method="words", epochs=3).scorer.epochs == 3
