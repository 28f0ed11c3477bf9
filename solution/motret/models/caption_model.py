"""The likelihood of a caption given a motion: a small language model that sees the motion's tokens.

p(w_1 .. w_n | motion) = prod_t p(w_t | w_1 .. w_t-1, motion). Layers that read the words so far
come first, so that a caption is read once for all motions. Layers in which each word looks at the
tokens of both persons follow. Ranking by such a likelihood: Lin et al. 2024 (VisualGPTScore).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.utils.device import to_device

PAD, START, END, UNKNOWN = range(4)
"""Numbers of the words that are none."""
HEADS = 4


@dataclass(frozen=True)
class CaptionModelSize:
    """Sizes that a caption model is built from: words of the vocabulary, numbers of a motion token,
    words of a caption at most, width."""

    vocabulary: int
    token_dim: int
    max_words: int
    width: int


class CaptionModel(nn.Module):
    """Scores the next word of a caption, given the words before it and a motion."""

    def __init__(self, size: CaptionModelSize, dropout: float, text_layers: int, layers: int):
        super().__init__()
        width, self.size = size.width, size
        self.embedding = nn.Embedding(size.vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.position = nn.Parameter(torch.randn(size.max_words, width) * 0.02)
        self.person = nn.Parameter(torch.randn(2, width) * 0.02)
        self.token = nn.Sequential(nn.LayerNorm(size.token_dim), nn.Linear(size.token_dim, width))
        self.text_layers = nn.ModuleList(_Layer(width, dropout) for _ in range(text_layers))
        self.layers = nn.ModuleList(_Layer(width, dropout) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)

    def read_words(self, word_idx: Tensor) -> Tensor:
        """(C, L, width) states of the words (C, L) of some captions, each from those up to it."""
        embedded = self.embedding(word_idx) * self.embedding.embedding_dim**0.5
        states: Tensor = self.dropout(embedded + self.position[: word_idx.shape[1]])
        for layer in self.text_layers:
            states = layer(states)
        return states

    def read_motions(
        self, tokens: tuple[Tensor, Tensor, Tensor], swap: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(M, K, width) states of motions' tokens, and which of them are real.

        tokens: as `Sequences.padded_with_positions` gives them, of sequences in which the first
        person has the first half; swap: (M,) whose persons change places.
        """
        vectors, real, position = (to_device(each, self.person.device) for each in tokens)
        person_idx = ((position >= 0.5) ^ to_device(swap, real.device)[:, None]).long()
        return self.token(vectors) + self.person[person_idx], real

    def forward(self, words: Tensor, motions: tuple[Tensor, Tensor]) -> Tensor:
        """Logits (M, P, vocabulary) of the word after each of P words (M, P, width), as M motions
        see it. words, motions: as `read_words` and `read_motions` return them."""
        tokens, real = motions
        for layer in self.layers:
            words = layer(words, tokens, real)
        logits: Tensor = self.norm(words) @ self.embedding.weight.T
        return logits


class _Layer(nn.Module):
    """Words look at the words up to each (no `tokens`), or at the tokens of their motion."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.norm_word, self.norm_token = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out, self.dropout = nn.Linear(width, width), nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(
        self, words: Tensor, tokens: Tensor | None = None, real: Tensor | None = None
    ) -> Tensor:
        """(B, P, width). tokens: (B, K, width); real: (B, K)."""
        normal = self.norm_word(words)
        source = normal if tokens is None else self.norm_token(tokens)
        query = self.query(normal).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key_value = self.key_value(source).unflatten(-1, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mask = None if real is None else real[:, None, None]
        attended = F.scaled_dot_product_attention(
            query, key_value[0], key_value[1], mask, is_causal=tokens is None
        )
        words = words + self.dropout(self.out(attended.transpose(1, 2).flatten(-2)))
        result: Tensor = words + self.dropout(self.feed_forward(words))
        return result
