"""Backbones of the motion towers: patches of frames to tokens, and the layers they go through.

A backbone has `embed` (patches and their positions to tokens) and `layers` (functions of tokens and
their layout, in order). INPUT and POSITIONS name its input projection and its positions.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import MotionConfig
from motret.utils.device import to_device

MAX_TOKENS = 512
"""Patches a backbone has positions for."""
PAD_MULTIPLE = 64
"""Packed sequences have a multiple of so many tokens: on a CPU matrix products of shapes that were
met before take a third less time."""


@dataclass(frozen=True)
class PackedSequence:
    """The layout of padded sequences (B, N) whose real tokens lie end to end (R, d).

    What is done to each token by itself is done to packed tokens, without the padding; attention
    needs them padded. real: (B, N), True at the tokens; indices: (R,) into the flat (B * N) of the
    tokens that are packed, None where all are real.
    """

    real: Tensor
    indices: Tensor | None

    @classmethod
    def from_mask(cls, real: Tensor, device: torch.device | None = None) -> "PackedSequence":
        """The layout in which `real` (B, N), on the CPU, is True at the tokens.

        device: where the tokens are, by default the CPU. Padding, as far as there is any, fills R
        up to a multiple of `PAD_MULTIPLE`.
        """
        flat, device = real.reshape(-1), device or real.device
        tokens, padding = flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]
        if not len(padding):
            return cls(to_device(real, device), None)
        n_filled = -len(tokens) % PAD_MULTIPLE
        indices = torch.cat([tokens, padding[:n_filled]])
        return cls(to_device(real, device), to_device(indices, device))

    def reshape(self, *shape: int) -> "PackedSequence":
        """The same tokens as sequences of another length."""
        return PackedSequence(self.real.reshape(shape), self.indices)

    def pack(self, padded: Tensor) -> Tensor:
        """(R, d) packed tokens of (..., d) padded ones, which are B * N in their order."""
        flat = padded.reshape(-1, padded.shape[-1])
        return flat if self.indices is None else flat.index_select(0, self.indices)

    def pad(self, tokens: Tensor) -> Tensor:
        """(B, N, d) padded tokens of packed ones (R, d); 0 elsewhere."""
        if self.indices is not None:
            zeros = tokens.new_zeros(self.real.numel(), tokens.shape[-1])
            tokens = zeros.index_copy(0, self.indices, tokens)
        return tokens.view(*self.real.shape, tokens.shape[-1])

    @property
    def mask(self) -> Tensor | None:
        """(B, N), True where a token may be attended to; None: everywhere."""
        return None if self.indices is None else self.real


Layer = Callable[[Tensor, PackedSequence], Tensor]
"""Packed tokens (R, width) and their layout, to packed tokens."""


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention over (B, heads, N, d).

    mask: (B, 1, 1, N), True where a token may be attended to. On a CPU the plain products are four
    times as fast, forward and backward, as the fused kernel at a motion's few dozen tokens.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1).to(value.dtype) @ value


class Block(nn.Module):
    """A pre-norm transformer layer over packed tokens (R, width)."""

    def __init__(self, width: int, heads: int, hidden_dim: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, width)
        )

    def forward(self, tokens: Tensor, layout: PackedSequence) -> Tensor:
        qkv = layout.pad(self.qkv(self.attention_norm(tokens))).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = None if layout.mask is None else layout.mask[:, None, None]
        attended = softmax_attention(query, key, value, mask).transpose(1, 2).flatten(-2)
        tokens = tokens + self.dropout(self.proj(layout.pack(attended)))
        output: Tensor = tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))
        return output


class Transformer(nn.Module):
    """Pre-norm layers with softmax attention."""

    INPUT, POSITIONS = "project", "positions"

    def __init__(self, config: MotionConfig, features: int):
        super().__init__()
        width = config.width
        self.project = nn.Linear(features, width)
        self.positions = nn.Parameter(torch.randn(MAX_TOKENS, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.hidden_dim, config.dropout)
            for _ in range(config.layers)
        )

    def embed(self, patches: Tensor, positions: Tensor) -> Tensor:
        """(B, persons, N, width) tokens of patches (B, persons, N, features).

        positions: (B, N) of the patches in time.
        """
        # unlike self.positions[positions], the gradient of F.embedding adds up in one order: runs
        # repeat bit for bit on several threads
        tokens: Tensor = self.project(patches)
        return tokens + F.embedding(positions, self.positions)[:, None]

    def layers(self) -> list[Layer]:
        """The layers in order."""
        return list(self.blocks)


class StyledOutput(nn.Module):
    """What a sublayer adds to its tokens: normalised, scaled and shifted by the step, projected.

    At first it adds nothing.
    """

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * width, 2 * width))
        self.norm = nn.LayerNorm(width)
        output = nn.Linear(width, width)
        self.out_layers = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), output)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)

    def forward(self, hidden: Tensor, step: Tensor) -> Tensor:
        scale, shift = self.emb_layers(step).chunk(2, dim=-1)
        output: Tensor = self.out_layers(self.norm(hidden) * (1 + scale) + shift)
        return output


def linear_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention at a cost linear in N (Shen et al. 2021) over (B, heads, N, d).

    It is softmax(q over d) (softmax(k over N)^T v). mask: (B, 1, N, 1), True where a token may be
    attended to.
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

    def forward(self, tokens: Tensor, step: Tensor, layout: PackedSequence) -> Tensor:
        normed = self.norm(tokens)
        query, key, value = (
            layout.pad(linear(normed)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        mask = None if layout.mask is None else layout.mask[:, None, :, None]
        attended = linear_attention(query, key, value, mask).transpose(1, 2).flatten(-2)
        output: Tensor = self.proj_out(layout.pack(attended), step)
        return tokens + output


class FeedForward(nn.Module):
    """The feed-forward sublayer of MotionDiffuse."""

    def __init__(self, width: int, hidden_dim: int, dropout: float):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden_dim), nn.Linear(hidden_dim, width)
        self.dropout, self.proj_out = nn.Dropout(dropout), StyledOutput(width, dropout)

    def forward(self, tokens: Tensor, step: Tensor) -> Tensor:
        hidden = self.linear2(self.dropout(F.gelu(self.linear1(tokens))))
        output: Tensor = self.proj_out(hidden, step)
        return tokens + output


class LinearBlock(nn.Module):
    """A layer of MotionDiffuse without its attention to a text."""

    def __init__(self, width: int, heads: int, hidden_dim: int, dropout: float):
        super().__init__()
        self.sa_block = LinearAttention(width, heads, dropout)
        self.ffn = FeedForward(width, hidden_dim, dropout)

    def forward(self, tokens: Tensor, layout: PackedSequence, step: Tensor) -> Tensor:
        output: Tensor = self.ffn(self.sa_block(tokens, step, layout), step)
        return output


class MotionDiffuse(nn.Module):
    """The motion half of MotionDiffuse (Zhang et al. 2022) as an encoder: at step 0, without text.

    Its parameters have their published names. Nothing is sampled. Its weights from scratch differ
    in one thing: the second matrix of a feed-forward does not start at zero.
    """

    INPUT, POSITIONS = "joint_embed", "sequence_embedding"
    step: Tensor

    def __init__(self, config: MotionConfig, features: int):
        super().__init__()
        width = config.width
        self.sequence_embedding = nn.Parameter(torch.randn(MAX_TOKENS, width) * 0.02)
        self.joint_embed = nn.Linear(features, width)
        self.time_embed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.temporal_decoder_blocks = nn.ModuleList(
            LinearBlock(width, config.heads, config.hidden_dim, config.dropout)
            for _ in range(config.layers)
        )
        step = torch.zeros(width)
        step[: width // 2] = 1  # cosines, then sines, of step 0
        self.register_buffer("step", step, persistent=False)

    def embed(self, patches: Tensor, positions: Tensor) -> Tensor:
        """(B, persons, N, width) tokens of patches (B, persons, N, features).

        positions: (B, N) of the patches in time.
        """
        tokens: Tensor = self.joint_embed(patches)
        return tokens + F.embedding(positions, self.sequence_embedding)[:, None]

    def layers(self) -> list[Layer]:
        """The layers in order, all at step 0."""
        step = self.time_embed(self.step)
        return [partial(block, step=step) for block in self.temporal_decoder_blocks]


Backbone = Transformer | MotionDiffuse
BACKBONES: dict[str, type[Backbone]] = {"transformer": Transformer, "motiondiffuse": MotionDiffuse}


def make_backbone(config: MotionConfig, features: int) -> Backbone:
    """The backbone that --backbone names, for patches (features,), with random weights."""
    return BACKBONES[config.backbone](config, features)


def freeze(backbone: Backbone, loaded: Collection[str]) -> None:
    """Takes the gradient from the loaded weights, or all where none were loaded.

    loaded: parameter names. The input projection always learns.
    """
    for name, weight in backbone.named_parameters():
        if not name.startswith(f"{backbone.INPUT}.") and (name in loaded or not loaded):
            weight.requires_grad_(False)
