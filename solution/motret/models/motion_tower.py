"""Motion towers: frames of one or two persons to one vector, the same whichever person is stored first."""

import difflib
import importlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motret.config.training import MotionConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models import backbones
from motret.models.backbones import MAX_TOKENS, PackedSequence


class MotionTransformer(nn.Module):
    """A backbone over patches of frames, shared by both persons, who meet in its last layers; mean and maximum over all tokens, or [CLS].

    No token carries which person it belongs to, so swapping the persons changes nothing.
    """

    takes_persons_alike = True

    def __init__(self, config: MotionConfig, persons: int, columns: dict[str, slice]):
        super().__init__()
        del persons  # any number: all go through the same layers
        if config.max_frames // config.patch > MAX_TOKENS:
            problem = f"{config.max_frames} frames are more than {MAX_TOKENS} patches of {config.patch}"
            raise ConfigError("--max_frames", problem, "raise --patch or lower --max_frames")
        if not config.mask:
            raise ConfigError("--no_mask", "this tower always masks padding", "leave it out, or take the variant clip_readme")
        self.patch, self.drop, self.joint = config.patch, config.token_drop, config.cross_person_layers
        self.pools_cls, self.width = config.pool == "cls", config.width
        self.dim = self.width if self.pools_cls else 2 * self.width
        self.backbone = backbones.make_backbone(config, config.patch * max(part.stop for part in columns.values()))
        self.summary = nn.Parameter(torch.randn(1, self.width) * 0.02)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, batch: MotionBatch) -> Tensor:
        """(B, dim)"""
        tokens, mask = self.attend(*self.patches(batch), self.summary)
        return self.pool(tokens, mask)

    def attend(self, patches: Tensor, places: Tensor, mask: Tensor, special: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, persons, S + N, width) after all layers, and which are real (B, persons, S + N).

        patches, places, mask: as `patches` gives them; special: (S, width) learned tokens without a place, put first for each person.
        """
        size, persons, count = patches.shape[:3]
        tokens = self.backbone.embed(patches, places)
        tokens = torch.cat([special.expand(size, persons, *special.shape).to(tokens.dtype), tokens], dim=2)
        count += len(special)
        mask = F.pad(mask, (len(special), 0), value=True)[:, None].expand(size, persons, count)
        alone = PackedSequence.of(mask.reshape(size * persons, count))
        together = alone.reshape(size, persons * count)
        tokens, layers = alone.join(tokens), self.backbone.layers()
        for number, layer in enumerate(layers):
            tokens = layer(tokens, together if number >= len(layers) - self.joint else alone)
        return alone.spread(self.norm(tokens)).view(size, persons, count, self.width), mask

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, dim) mean and maximum over the real tokens of both persons, or the mean of their [CLS] tokens."""
        if self.pools_cls:
            return tokens[:, :, 0].mean(dim=1)
        size = len(tokens)
        tokens, real = tokens.reshape(size, -1, self.width), mask.reshape(size, -1, 1)
        mean = (tokens * real).sum(dim=1) / real.sum(dim=1)
        return torch.cat([mean, tokens.masked_fill(~real, float("-inf")).amax(dim=1)], dim=-1)

    def patches(self, batch: MotionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Patches (B, persons, N, patch * D), their places in time (B, N) and which are real (B, N).

        A last patch that is not full is left out. In training a share of each motion's patches is dropped, at random but the
        same for both persons; what is left is computed on, so dropping saves time.
        """
        size, frames, persons, features = batch.frames.shape
        count = max(1, frames // self.patch)
        whole = batch.frames[:, : count * self.patch]
        if whole.shape[1] < self.patch:
            whole = torch.cat([whole, whole[:, -1:].expand(-1, self.patch - whole.shape[1], -1, -1)], dim=1)
        patches = whole.view(size, count, self.patch, persons, features)
        real = (batch.lengths // self.patch).clamp(min=1, max=count)
        places = torch.arange(count, device=real.device).expand(size, count)
        if batch.generator is not None and self.drop > 0:
            luck = torch.rand(size, count, generator=batch.generator, device=real.device)
            order = luck.masked_fill(places >= real[:, None], 2.0).argsort(dim=1)
            places = order[:, : math.ceil((1 - self.drop) * count)]
            patches = patches[torch.arange(size, device=real.device)[:, None], places]  # before the copies below
            real = ((1 - self.drop) * real).ceil().long()
        if torch.is_autocast_enabled(patches.device.type):  # the projection would round them as well, after the copy
            patches = patches.to(torch.get_autocast_dtype(patches.device.type))
        patches = patches.permute(0, 3, 1, 2, 4).reshape(size, persons, places.shape[1], -1)
        mask = torch.arange(places.shape[1], device=real.device) < real[:, None]
        return patches, places, mask


def make_motion_tower(config: MotionConfig, persons: int, columns: dict[str, slice], parts: bool = True) -> nn.Module:
    """The tower that `settings.motion_tower` names: a class called with these arguments, with a `dim` and a forward of `MotionBatch`.

    parts: whether there are part texts to learn from; if not, a class gives way to the one that it calls `without_parts`.
    """
    kind = _tower_class(config)
    tower = (kind if parts else getattr(kind, "without_parts", kind))(config, persons, columns)
    dim = getattr(tower, "dim", None)
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        problem = f"{config.motion_tower} has no width: its dim is {dim!r}"
        raise ConfigError("--motion_tower", problem, "set self.dim in __init__ to the size of the vectors that forward returns")
    return tower


def check_motion_tower(config: MotionConfig, columns: dict[str, slice], batch: MotionBatch, parts: bool = True) -> None:
    """ConfigError where the tower does not give a vector of its width for each motion of the batch."""
    with torch.random.fork_rng(), torch.inference_mode():
        tower = make_motion_tower(config, batch.frames.shape[2], columns, parts).to(batch.frames.device).eval()
        returned = tower(batch)
    wanted = (len(batch.frames), tower.dim)
    shape = tuple(returned.shape) if isinstance(returned, Tensor) else None
    if shape == wanted:
        return
    what = f"a {type(returned).__name__}" if shape is None else f"{shape} for {wanted[0]} motions"
    problem = f"forward of {config.motion_tower} returns {what}, and its dim is {tower.dim}"
    fix = "return a tensor (motions, dim)"
    if shape is not None and len(shape) == 2 and shape[0] == wanted[0]:
        fix = f"set self.dim to {shape[1]}, or return vectors of {tower.dim}"
    raise ConfigError("--motion_tower", problem, fix)


def is_person_symmetric(config: MotionConfig) -> bool:
    """Whether the tower promises that swapping the persons changes nothing: its class says `takes_persons_alike = True`."""
    return getattr(_tower_class(config), "takes_persons_alike", False)


def _tower_class(config: MotionConfig) -> type[nn.Module]:
    place, colon, name = config.motion_tower.partition(":")
    if not (place and colon and name):
        problem = f"{config.motion_tower!r} is not of the form module:Class"
        raise ConfigError("--motion_tower", problem, "write for example motret.models.motion_tower:MotionTransformer")
    try:
        module = importlib.import_module(place)
    except (ImportError, ValueError) as missing:
        fix = "give a file of solution/ without its .py; docs/add_motion_tower.md has an example"
        raise ConfigError("--motion_tower", f"{config.motion_tower!r}: {missing}", fix) from missing
    kind = getattr(module, name, None)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    towers = [key for key, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__]
    towers = [key for key in towers if issubclass(getattr(module, key), nn.Module)]
    problem = f"{config.motion_tower!r}: {name} is no nn.Module" if kind else f"{config.motion_tower!r}: no {name} in {module.__file__}"
    close = difflib.get_close_matches(name, towers, n=1) or towers
    raise ConfigError("--motion_tower", problem, f"its towers: {', '.join(close)}" if close else "define the class there")
