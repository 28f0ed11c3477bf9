"""Backbones of the motion towers: what turns patches of frames into tokens, and the layers that the tokens go through.

A backbone has `embed` (patches and their places to tokens) and `layers` (functions of tokens and their grid, in their order). INPUT and
POSITIONS name its input projection and its positions.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import MotionConfig

MAX_TOKENS = 512
"""Patches a backbone has positions for."""
PAD_MULTIPLE = 64
"""Where there is padding, tokens are computed on in multiples of so many: on a CPU matrix products of shapes that were met before take a
third less time."""


@dataclass(frozen=True)
class PackedSequence:
    """Which places (B, N) of sequences that are padded to one length hold tokens. What is done to each token by itself is done to those
    alone, end to end (R, d); attention sees them in the grid.

    real: (B, N); rows: (R,) the places in the flat grid that are computed on, None where all of it is real.
    """

    real: Tensor
    indices: Tensor | None

    @classmethod
    def from_mask(cls, real: Tensor) -> "PackedSequence":
        """The grid in which `real` (B, N) is True at the tokens. As far as it reaches, padding fills R up to a multiple of `EVEN`."""
        flat = real.reshape(-1)
        count = int(flat.sum())
        even = -(-count // PAD_MULTIPLE) * PAD_MULTIPLE
        return cls(
            real,
            None if count == len(flat) else (~flat).to(torch.uint8).argsort(stable=True)[:even],
        )

    def reshape(self, *shape: int) -> "PackedSequence":
        """The same places as sequences of another length."""
        return PackedSequence(self.real.reshape(shape), self.indices)

    def pack(self, padded: Tensor) -> Tensor:
        """Of (..., d), which are the grid's places in their order, what is computed on, end to end (R, d)."""
        flat = padded.reshape(-1, padded.shape[-1])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def pad(self, tokens: Tensor) -> Tensor:
        """Tokens (R, d) in their places (B, N, d); 0 elsewhere."""
        if self.indices is not None:
            tokens = tokens.new_zeros(self.real.numel(), tokens.shape[-1]).index_copy(0, self.indices, tokens)
        return tokens.view(*self.real.shape, tokens.shape[-1])

    @property
    def mask(self) -> Tensor | None:
        """(B, N), True where a token may be attended to; None: everywhere."""
        return None if self.indices is None else self.real


Layer = Callable[[Tensor, PackedSequence], Tensor]
"""Tokens end to end (R, width) and the grid that they stand in, to tokens."""


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention over (B, heads, N, d); `mask` (B, 1, 1, N) is True where a token may be attended to.

    On a CPU the plain products are four times as fast, forward and backward, as the fused kernel at a motion's few dozen tokens.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1).to(value.dtype) @ value


class Block(nn.Module):
    """A pre-norm transformer layer over tokens (R, width)."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor, grid: PackedSequence) -> Tensor:
        heads = grid.pad(self.qkv(self.attention_norm(tokens))).unflatten(-1, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = softmax_attention(query, key, value, None if grid.mask is None else grid.mask[:, None, None])
        tokens = tokens + self.dropout(self.proj(grid.pack(seen.transpose(1, 2).flatten(-2))))
        return tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))


class Transformer(nn.Module):
    """Pre-norm layers with softmax attention."""

    INPUT, POSITIONS = "project", "positions"

    def __init__(self, config: MotionConfig, features: int):
        super().__init__()
        width = config.width
        self.project = nn.Linear(features, width)
        self.positions = nn.Parameter(torch.randn(MAX_TOKENS, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.hidden_dim, config.dropout) for _ in range(config.layers))

    def embed(self, patches: Tensor, places: Tensor) -> Tensor:
        """(B, persons, N, width) tokens of patches (B, persons, N, features) at places (B, N)."""
        # unlike positions[places], the gradient of F.embedding adds up in one order: runs repeat bit for bit on several threads
        return self.project(patches) + F.embedding(places, self.positions)[:, None]

    def layers(self) -> list[Layer]:
        return list(self.blocks)


class StyledOutput(nn.Module):
    """What a sublayer adds to its tokens: normalised, scaled and shifted as the step says, projected. At first it adds nothing."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * width, 2 * width))
        self.norm = nn.LayerNorm(width)
        self.out_layers = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width))
        nn.init.zeros_(self.out_layers[2].weight)
        nn.init.zeros_(self.out_layers[2].bias)

    def forward(self, found: Tensor, step: Tensor) -> Tensor:
        scale, shift = self.emb_layers(step).chunk(2, dim=-1)
        return self.out_layers(self.norm(found) * (1 + scale) + shift)


def linear_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention at a cost linear in N (Shen et al. 2021) over (B, heads, N, d): softmax(q over d) (softmax(k over N)^T v).

    `mask` (B, 1, N, 1) is True where a token may be attended to.
    """
    if mask is not None:
        key = key.masked_fill(~mask, float("-inf"))
    return query.softmax(dim=-1) @ (key.softmax(dim=-2).transpose(-1, -2) @ value)


class LinearAttention(nn.Module):
    """Self-attention as MotionDiffuse has it."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.proj_out = StyledOutput(width, dropout)

    def forward(self, tokens: Tensor, step: Tensor, grid: PackedSequence) -> Tensor:
        normed = self.norm(tokens)
        found = (grid.pad(to(normed)) for to in (self.query, self.key, self.value))
        query, key, value = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in found)
        seen = linear_attention(query, key, value, None if grid.mask is None else grid.mask[:, None, :, None])
        return tokens + self.proj_out(grid.pack(seen.transpose(1, 2).flatten(-2)), step)


class FeedForward(nn.Module):
    """The feed-forward sublayer of MotionDiffuse."""

    def __init__(self, width: int, hidden: int, dropout: float):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout, self.proj_out = nn.Dropout(dropout), StyledOutput(width, dropout)

    def forward(self, tokens: Tensor, step: Tensor) -> Tensor:
        return tokens + self.proj_out(self.linear2(self.dropout(F.gelu(self.linear1(tokens)))), step)


class LinearBlock(nn.Module):
    """A layer of MotionDiffuse without its attention to a text."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.sa_block = LinearAttention(width, heads, dropout)
        self.ffn = FeedForward(width, hidden, dropout)

    def forward(self, tokens: Tensor, grid: PackedSequence, step: Tensor) -> Tensor:
        return self.ffn(self.sa_block(tokens, step, grid), step)


class MotionDiffuse(nn.Module):
    """The motion half of MotionDiffuse (Zhang et al. 2022), under its parameter names, as an encoder: at diffusion step 0, without text.

    Nothing is sampled. Its weights from scratch differ in one thing: the second matrix of a feed-forward does not start at zero.
    """

    INPUT, POSITIONS = "joint_embed", "sequence_embedding"

    def __init__(self, config: MotionConfig, features: int):
        super().__init__()
        width = config.width
        self.sequence_embedding = nn.Parameter(torch.randn(MAX_TOKENS, width) * 0.02)
        self.joint_embed = nn.Linear(features, width)
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.temporal_decoder_blocks = nn.ModuleList(
            LinearBlock(width, config.heads, config.hidden_dim, config.dropout) for _ in range(config.layers)
        )
        step = torch.zeros(width)
        step[: width // 2] = 1  # cosines, then sines, of step 0
        self.register_buffer("step", step, persistent=False)

    def embed(self, patches: Tensor, places: Tensor) -> Tensor:
        """(B, persons, N, width) tokens of patches (B, persons, N, features) at places (B, N)."""
        return self.joint_embed(patches) + F.embedding(places, self.sequence_embedding)[:, None]

    def layers(self) -> list[Layer]:
        step = self.time_embed(self.step)
        return [partial(block, step=step) for block in self.temporal_decoder_blocks]


Backbone = Transformer | MotionDiffuse
KINDS: dict[str, type[Backbone]] = {"transformer": Transformer, "motiondiffuse": MotionDiffuse}


def make_backbone(config: MotionConfig, features: int) -> Backbone:
    """The backbone that --backbone names, for patches of so many features, with random weights."""
    return KINDS[config.backbone](config, features)


def freeze(backbone: Backbone, loaded: Collection[str]) -> None:
    """Takes the gradient from all weights that were loaded (where none were: from all) but the input projection."""
    for name, weight in backbone.named_parameters():
        if not name.startswith(f"{backbone.INPUT}.") and (name in loaded or not loaded):
            weight.requires_grad_(False)
