"""Text towers of one's own are tried before training: what does not fit is one line."""

import pytest

from motret.config import base
from motret.config.training import TextConfig
from motret.errors import ConfigError
from motret.models import registry

CAPTIONS = ["one waves.", "one person walks up to the other, bows, and then shakes hands.", "bow"]
HEADER = """
import torch
from torch import nn
from motret.models.text_tower import TextTower, masked_mean

class Words(TextTower):
"""
INIT = """
    def __init__(self, config):
        super().__init__()
        self.dim = 8
        self.embedding = nn.Embedding(128, 8)
        self.rnn = nn.GRU(8, 8, batch_first=True)
"""
TOKENIZE = """
    def tokenize(self, captions):
        ids = [torch.tensor([ord(letter) for letter in caption]) for caption in captions]
        lengths = torch.tensor([len(caption) for caption in captions])
        return nn.utils.rnn.pad_sequence(ids, batch_first=True), lengths
"""
MEAN = """
    def forward(self, ids, lengths):
        return masked_mean(self.embedding(ids), lengths)
"""
PADDED_GRU = """
    def forward(self, ids, lengths):
        return self.rnn(self.embedding(ids))[1][-1]
"""
PACKED_GRU = """
    def forward(self, ids, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(ids), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.rnn(packed)[1][-1]
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes the tower of a source, as `make_text_tower` does, and checks it as train.py does."""
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path.name

    def make(init=INIT, tokenize=TOKENIZE, forward=MEAN, captions=CAPTIONS):
        (tmp_path / f"{module}.py").write_text(HEADER + init + tokenize + forward)
        values = {"text_tower": f"{module}:Words", "text_weights": "none"}
        config = base.build_config(TextConfig, values)
        tower = registry.make_text_tower(config)
        registry.check_text_tower(config, tower, captions)
        return tower

    return make


def error_of(make, **values) -> str:
    with pytest.raises(ConfigError) as error:
        make(**values)
    message = str(error.value)
    assert message.startswith("--text_tower: test_") and ":Words: " in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("forward", [MEAN, PACKED_GRU])
def test_a_tower_that_heeds_lengths_passes_and_stays_in_training_mode(make, forward):
    assert make(forward=forward).training


def test_a_tower_whose_vectors_change_with_the_padding_is_refused(make):
    message = error_of(make, forward=PADDED_GRU)
    assert "padding changes the vector of a caption by " in message
    assert "pack_padded_sequence" in message and "mask" in message


INIT_WITHOUT_CONFIG = INIT.replace("self, config", "self")
LISTS = TOKENIZE.replace(
    "nn.utils.rnn.pad_sequence(ids, batch_first=True), lengths", "[[1, 2], [3, 4]], [2, 2]"
)
NO_LENGTHS = TOKENIZE.replace("True), lengths", "True)")
ZERO = TOKENIZE.replace("True), lengths", "True), 0 * lengths")
LONG = TOKENIZE.replace("True), lengths", "True), 1 + lengths")
FEW = TOKENIZE.replace("True), lengths", "True), lengths[:1]")
FLAT = TOKENIZE.replace("True), lengths", "True)[0], lengths")
FAILS = TOKENIZE.replace("return", "raise KeyError('waves') #")
OUT_OF_RANGE = TOKENIZE.replace("ord(letter)", "ord(letter) + 128")
FORWARD_FAILS = MEAN.replace("return", "raise RuntimeError('first\\nsecond') #")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"init": INIT_WITHOUT_CONFIG}, "__init__ does not take the config (write __init__(self, "),
        ({"init": INIT.replace("super()", "nothing()")}, "__init__ failed (NameError: "),
        ({"tokenize": LISTS}, "tokenize returns ids as a list (return"),
        ({"tokenize": NO_LENGTHS}, "tokenize returns a Tensor alone (return"),
        ({"tokenize": ZERO}, "tokenize gives a caption 0 tokens (return"),
        ({"tokenize": LONG}, "tokenize gives a caption 32 tokens, and ids have 31 columns (return"),
        ({"tokenize": FEW}, "tokenize returns lengths (1,) for 2 captions (return"),
        ({"tokenize": FLAT}, "tokenize returns ids (31,) for 2 captions (return"),
        ({"tokenize": FAILS}, "tokenize failed on the trial captions (KeyError: 'waves') (correct"),
        (
            {"tokenize": ""},
            "tokenize failed on the trial captions "
            "(NotImplementedError: a text tower defines tokenize) (correct",
        ),
        ({"tokenize": OUT_OF_RANGE}, "forward failed on the trial captions (IndexError: "),
        (
            {"forward": FORWARD_FAILS},
            "forward failed on the trial captions (RuntimeError: first) (",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_class(make, values, problem):
    assert problem in error_of(make, **values)


@pytest.mark.parametrize(
    ("captions", "problem"),
    [
        (["one waves.", ""], "tokenize gives a caption 0 tokens"),
        (["one waves.", "naïve"], "forward failed on the captions of the data (IndexError: "),
    ],
)
def test_captions_of_the_data_are_tried_too(make, captions, problem):
    assert problem in error_of(make, captions=captions)


def test_an_error_of_the_class_keeps_its_traceback_for_debug(make):
    with pytest.raises(ConfigError) as error:
        make(tokenize=FAILS)
    assert isinstance(error.value.__cause__, KeyError) and "--debug" in error.value.fix


def test_limits_of_the_vocabulary_are_those_of_clip_only_for_clip():
    for size in (512, 100_000):
        values = {"text_tower": "my_text:Words", "text_weights": "none", "text_vocabulary": size}
        assert base.build_config(TextConfig, values).text_vocabulary == size
        with pytest.raises(ConfigError, match="1024 to 49408"):
            base.build_config(TextConfig, {"text_vocabulary": size})
    with pytest.raises(ConfigError, match="--text_vocabulary"):
        base.build_config(TextConfig, {"text_tower": "my_text:Words", "text_vocabulary": 0})
