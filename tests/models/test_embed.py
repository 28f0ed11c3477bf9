"""Caption banks: vectors of a frozen tower, cached, or the tokens for a tower that trains."""

import numpy as np
import pytest
import torch

from helpers import CAPTIONS, CLOSE, WORDS, saved_bert
from motret.config import base
from motret.config.training import TextConfig
from motret.models import embed, registry

CPU = torch.device("cpu")


def config(**values):
    return base.build_config(TextConfig, values)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    return saved_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(bert_folder):
    return registry.make_text_tower(config(text_tower=f"hf:{bert_folder}"))


class Counted(torch.nn.Module):
    """A tower that counts the captions it is asked for; its vector is the length, weighed."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight, -weight]))
        self.dim, self.seen, self.tokenized = 2, 0, 0

    def tokenize(self, captions):
        self.tokenized += len(captions)
        return torch.zeros(len(captions), 30, dtype=torch.long), torch.tensor(
            [len(caption) for caption in captions]
        )

    def forward(self, ids, lengths):
        self.seen += len(ids)
        assert ids.shape[1] == 30 or ids.shape[1] == int(lengths.max())
        return lengths[:, None] * self.weight


def test_frozen_vectors_are_made_once_and_kept(tmp_path):
    tower = Counted()
    captions = ["bbb", "a", "bbb", "cc"]
    banks = [embed.make_caption_bank(captions, tower, True, tmp_path, CPU) for _ in range(2)]
    assert tower.seen == 3 and tower.tokenized == 2 * 3  # the tokens are part of the key
    for bank in banks:
        assert bank.ids is None and len(bank.index) == 3
        assert bank.vectors[bank.indices(captions)].tolist() == [[3, -3], [1, -1], [3, -3], [2, -2]]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_other_weights_or_captions_are_not_answered_from_the_cache(tmp_path):
    class Swapped(Counted):
        """Sums of its weights are those of Counted."""

        def __init__(self):
            super().__init__()
            self.weight.data = self.weight.data.flip(0)

    Swapped.__name__ = "Counted"
    first = embed.make_caption_bank(["a"], Counted(), True, tmp_path, CPU)
    for tower, captions in ((Counted(2.0), ["a"]), (Counted(), ["bb"]), (Swapped(), ["a"])):
        bank = embed.make_caption_bank(captions, tower, True, tmp_path, CPU)
        assert tower.seen == 1
        assert not torch.equal(bank.vectors, first.vectors)


def test_other_tokens_of_the_same_captions_are_not_answered_from_the_cache(
    tmp_path, bert, bert_folder
):
    before = embed.make_caption_bank(CAPTIONS, bert, True, tmp_path / "bank", CPU)
    reordered = saved_bert(tmp_path / "reordered")
    reordered.joinpath("vocab.txt").write_text("\n".join(WORDS[:5] + WORDS[:4:-1]) + "\n")
    other = registry.make_text_tower(config(text_tower=f"hf:{bert_folder}"))
    other.tokenizer = registry.make_text_tower(config(text_tower=f"hf:{reordered}")).tokenizer
    assert not torch.equal(other.tokenize(CAPTIONS)[0], bert.tokenize(CAPTIONS)[0])
    assert not torch.allclose(
        embed.make_caption_bank(CAPTIONS, other, True, tmp_path / "bank", CPU).vectors,
        before.vectors,
    )


def test_a_tower_that_trains_gets_tokens_instead(tmp_path):
    tower = Counted()
    bank = embed.make_caption_bank(["bbb", "a"], tower, False, tmp_path, CPU)
    assert tower.seen == 0 and not list(tmp_path.iterdir())
    assert bank.vectors is None and bank.ids.shape == (2, 30)
    assert bank.lengths[bank.indices(["bbb", "a"])].tolist() == [3, 1]


def test_embedding_keeps_the_order_of_the_captions_whatever_batches_they_went_in(monkeypatch, bert):
    monkeypatch.setattr(embed, "inference_dtype", lambda *_: None)
    whole = embed.embed_frozen(bert, *bert.tokenize(CAPTIONS), CPU)
    monkeypatch.setattr(embed, "EMBED_BATCH_SIZE", 2)
    np.testing.assert_allclose(
        embed.embed_frozen(bert, *bert.tokenize(CAPTIONS), CPU), whole, **CLOSE
    )
    ids, lengths = bert.tokenize(CAPTIONS)
    with torch.inference_mode():
        np.testing.assert_allclose(whole, bert(ids, lengths).numpy(), **CLOSE)


def test_hardware_with_bfloat16_gives_nearly_the_same_vectors_under_a_key_of_their_own(
    monkeypatch, tmp_path, bert
):
    vectors = {}
    for halved in (False, True):
        dtype = torch.bfloat16 if halved else None
        monkeypatch.setattr(embed, "inference_dtype", lambda *_, dtype=dtype: dtype)
        vectors[halved] = embed.make_caption_bank(CAPTIONS, bert, True, tmp_path, CPU).vectors
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.equal(vectors[True], vectors[False])
    assert torch.nn.functional.cosine_similarity(vectors[True], vectors[False]).min() > 0.999
