"""What every text tower offers, how its settings are read, and the helpers that towers share."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from motret.config.training import TextConfig


class TextTower(nn.Module):
    """Captions to vectors: the base class of every text tower.

    dim: size of the vectors; note: what a user should know of how the tower was loaded;
    trims_padding: whether `tokenize` gives the length of each caption, rather than that of the
    padded ids. docs/add_text_tower.md shows how to add one.
    """

    dim: int
    note: str = ""
    trims_padding: bool = True

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (C, L), padded on the right, and the number of tokens of each caption (C,)."""
        raise NotImplementedError("a text tower defines tokenize")

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(C, dim) vectors of token ids (C, L), of which the first `lengths` (C,) are real."""
        raise NotImplementedError("a text tower defines forward")

    def encode_words(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(C, L, word dim) states of the tokens; what stands beyond `lengths` means nothing.

        Only `rerank.py` asks for them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encode_words")

    def vocabulary(self) -> Mapping[str, int]:
        """The tokenizer's words and their ids; a run records a digest of them. Empty: unknown."""
        return {}


def vocabulary_of(tokenizer: object) -> dict[str, int]:
    """Words and ids of a tokenizer of Hugging Face or open_clip, or one that open_clip wraps."""
    for layer in (tokenizer, getattr(tokenizer, "tokenizer", None)):
        get_vocab = getattr(layer, "get_vocab", None)
        words = get_vocab() if get_vocab else getattr(layer, "encoder", None)
        if words:
            return dict(words)
    return {}


def masked_mean(hidden: Tensor, lengths: Tensor) -> Tensor:
    """(C, dim) mean of (C, L, dim) over the first `lengths` (C,) tokens."""
    real = (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None])[..., None]
    return (hidden * real).sum(dim=1) / lengths[:, None]


def drop_words(
    ids: Tensor, lengths: Tensor, prob: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Token ids (C, L) and lengths (C,) without some of the tokens.

    Each token is dropped with probability `prob`; what follows moves up, and the shape stays. The
    first and the last token, which mark the caption's ends, stay, and so does everything where
    nothing else would remain. A frequent word is one token, a rare one several.
    """
    positions = torch.arange(ids.shape[1], device=ids.device)
    inner = (positions > 0) & (positions < lengths[:, None] - 1)
    dropped = (torch.rand(ids.shape, generator=generator, device=ids.device) < prob) & inner
    dropped &= (inner & ~dropped).any(dim=1, keepdim=True)
    order = dropped.to(torch.uint8).argsort(dim=1, stable=True)
    return ids.gather(1, order), lengths - dropped.sum(dim=1)


def is_hugging_face(config: TextConfig) -> bool:
    """Whether --text_tower names a Hugging Face encoder (hf:<name or folder>)."""
    return config.text_tower.startswith("hf:")


def is_custom(config: TextConfig) -> bool:
    """Whether --text_tower names a class as `module:Class`."""
    return ":" in config.text_tower and not is_hugging_face(config)


def trains_from_scratch(config: TextConfig) -> bool:
    """Whether the tower starts from random weights (and so must be trained)."""
    return config.is_from_scratch


def is_trained(config: TextConfig) -> bool:
    """Whether the tower is trained with the motion tower, rather than run once per caption."""
    return config.is_trained


def is_fine_tuned(config: TextConfig) -> bool:
    """Whether a pretrained tower is trained."""
    return config.unfreeze_text and not trains_from_scratch(config)
