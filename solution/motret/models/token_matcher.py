"""Late interaction: every word of a caption looks for the token of a motion that fits it best.

The score of Khattab and Zaharia 2020 (ColBERT), with learned weights of the words: sum_w a_w max_t
<f(w), g(t)>, where f and g project word states and motion tokens onto one unit sphere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.utils.device import to_device

MAX_LOGIT_SCALE = 100.0
"""1 / tau never exceeds this."""


@dataclass(frozen=True)
class Sequences:
    """Sequences of vectors laid end to end: those of captions' words, or of motions' tokens.

    vectors: (sum of lengths, dim), in half precision; lengths: (n,) at least 1 each. Both are on
    the CPU.
    """

    vectors: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> "Sequences":
        """From the vectors (length, dim) of each."""
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return cls(torch.cat(list(sequences)).half(), lengths)

    @classmethod
    def join(cls, parts: Sequence["Sequences"]) -> "Sequences":
        """The sequences of several, those of the first one first."""
        vectors = torch.cat([part.vectors for part in parts])
        return cls(vectors, torch.cat([part.lengths for part in parts]))

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def select(self, indices: Tensor) -> "Sequences":
        """Some of the sequences (n,)."""
        return Sequences(self._gather(indices), self.lengths[indices])

    def flat(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """All vectors (V, dim) of some sequences (n,), and the position (V,) of each one's
        sequence among these."""
        owner_idx = torch.repeat_interleave(torch.arange(len(indices)), self.lengths[indices])
        return self._gather(indices).float(), owner_idx

    def _gather(self, indices: Tensor) -> Tensor:
        """All vectors (V, dim) of some sequences, end to end."""
        lengths = self.lengths[indices]
        starts = (self.lengths.cumsum(0) - self.lengths)[indices]
        shift = starts - (lengths.cumsum(0) - lengths)
        return self.vectors[torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)]

    def padded(
        self, indices: Tensor, drop: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Vectors (n, L, dim) of some sequences, and which of them (n, L) are real.

        drop: fraction of each sequence's vectors that are left out at random, by the generator; the
        others are then in random order.
        """
        return self.padded_with_positions(indices, drop, generator)[:2]

    def padded_with_positions(
        self, indices: Tensor, drop: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and the position (n, L) of each vector in its sequence, from 0 to below 1."""
        flat, owner_idx = self.flat(indices)
        lengths = self.lengths[indices]
        position = torch.arange(len(owner_idx)) - (lengths.cumsum(0) - lengths)[owner_idx]
        vectors = flat.new_zeros(len(indices), int(lengths.max()), self.dim)
        vectors[owner_idx, position] = flat
        real = torch.arange(vectors.shape[1]) < lengths[:, None]
        whole = lengths[:, None]
        if not drop:
            return vectors, real, torch.arange(vectors.shape[1]) / whole
        noise = torch.rand(real.shape, generator=generator).masked_fill(~real, 2.0)
        lengths = ((1 - drop) * lengths).ceil().long()
        order = noise.argsort(dim=1)[:, : int(lengths.max())]
        vectors = vectors.take_along_dim(order[..., None], dim=1)
        return vectors, torch.arange(order.shape[1]) < lengths[:, None], order / whole


class TokenMatcher(nn.Module):
    """Scores captions and motions by their words and tokens.

    sizes: of the vectors of words and tokens; dim: of the shared space, hidden: of the layer before
    it.
    """

    def __init__(self, sizes: tuple[int, int], dim: int, hidden: int, dropout: float):
        super().__init__()
        self.sizes = word_dim, token_dim = sizes
        self.word_head = _projection(word_dim, hidden, dim, dropout)
        self.token_head = _projection(token_dim, hidden, dim, dropout)
        self.word_weight = nn.Sequential(nn.LayerNorm(word_dim), nn.Linear(word_dim, 1))
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def logit_scale(self) -> Tensor:
        """1 / tau."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def forward(self, words: tuple[Tensor, Tensor], tokens: tuple[Tensor, Tensor]) -> Tensor:
        """(C, M) scores from -1 to 1.

        words: as `Sequences.flat` gives them for C captions; tokens: as `Sequences.padded` gives
        them for M motions.
        """
        states, caption_idx = words
        vectors, real = tokens
        device, captions = self.log_scale.device, int(caption_idx[-1]) + 1
        states, caption_idx, vectors, real = (
            to_device(each, device) for each in (states, caption_idx, vectors, real)
        )
        word = F.normalize(self.word_head(states).float(), dim=-1)
        token = F.normalize(self.token_head(vectors).float(), dim=-1)
        similarity = (word @ token.flatten(0, 1).T).unflatten(1, real.shape)
        best = similarity.masked_fill(~real, -2.0).amax(dim=2)  # (words, M)
        weight = self.word_weight(states).float()[:, 0].exp()
        total = weight.new_zeros(captions).index_add(0, caption_idx, weight)
        weighted = (weight / total[caption_idx])[:, None] * best
        scores: Tensor = weighted.new_zeros(captions, len(real)).index_add(0, caption_idx, weighted)
        return scores


def _projection(size: int, hidden: int, dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(size),
        nn.Linear(size, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, dim),
    )
