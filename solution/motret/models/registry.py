"""Towers by name: those of this package, and classes of one's own as `module:Class`."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from motret.config.training import MotionConfig, TextConfig
from motret.data.inputs import MotionBatch
from motret.errors import ConfigError
from motret.models.class_path import load_class
from motret.models.clip_tower import make_clip_tower
from motret.models.frame_tower import FrameTransformer
from motret.models.hf_tower import make_hf_tower
from motret.models.motion_tower import MotionTransformer
from motret.models.part_tower import PartTransformer
from motret.models.text_tower import TextTower, is_custom, is_hugging_face

MOTION_TOWERS: dict[str, type[nn.Module]] = {
    "transformer": MotionTransformer,
    "part": PartTransformer,
    "frame": FrameTransformer,
}
"""What --motion_tower names, besides `module:Class`."""
MOTION_DOCS = "docs/add_motion_tower.md"
TEXT_DOCS = "docs/add_text_tower.md"
TEST_CAPTIONS = ("a person waves.", "two people shake hands and bow.")
"""What a text tower of one's own is tried on before anything is trained."""


def make_motion_tower(
    config: MotionConfig, persons: int, columns: dict[str, slice], parts: bool = True
) -> nn.Module:
    """The tower that --motion_tower names, with random weights.

    Its class is called with (config, persons, columns); it has a `dim` and a forward of
    `MotionBatch`. parts: whether there are part texts to learn from; if not, the class that a tower
    names as `without_parts` takes its place. ConfigError where there is no such tower, or no `dim`.
    """
    tower_class = _tower_class(config)
    if not parts:
        tower_class = getattr(tower_class, "without_parts", tower_class)
    # nn.Module does not say what its subclasses are called with
    tower = cast(Any, tower_class)(config, persons, columns)
    dim = getattr(tower, "dim", None)
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        problem = f"{config.motion_tower} has no width: its dim is {dim!r}"
        fix = "set self.dim in __init__ to the size of the vectors that forward returns"
        raise ConfigError("--motion_tower", problem, fix)
    return cast(nn.Module, tower)


def check_motion_tower(
    config: MotionConfig, columns: dict[str, slice], batch: MotionBatch, parts: bool = True
) -> None:
    """ConfigError where the tower does not give a vector (dim,) for each motion of the batch."""
    with torch.random.fork_rng(), torch.inference_mode():
        tower = make_motion_tower(config, batch.frames.shape[2], columns, parts)
        output = tower.to(batch.frames.device).eval()(batch)
    dim: Any = tower.dim
    expected = (len(batch.frames), dim)
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    if shape == expected:
        return
    kind = f"a {type(output).__name__}" if shape is None else f"{shape} for {expected[0]} motions"
    problem = f"forward of {config.motion_tower} returns {kind}, and its dim is {dim}"
    fix = "return a tensor (motions, dim)"
    if shape is not None and len(shape) == 2 and shape[0] == expected[0]:
        fix = f"set self.dim to {shape[1]}, or return vectors of {dim}"
    raise ConfigError("--motion_tower", problem, fix)


def is_person_symmetric(config: MotionConfig) -> bool:
    """Whether the tower promises that swapping the persons changes nothing.

    Its class says so with `person_symmetric = True`.
    """
    return bool(getattr(_tower_class(config), "person_symmetric", False))


def _tower_class(config: MotionConfig) -> type[nn.Module]:
    name = config.motion_tower
    if name in MOTION_TOWERS:
        return MOTION_TOWERS[name]
    if ":" not in name:
        fix = f"take one of {', '.join(MOTION_TOWERS)}, or module:Class ({MOTION_DOCS})"
        raise ConfigError("--motion_tower", f"no tower is called {name!r}", fix)
    return load_class("--motion_tower", name, nn.Module, MOTION_DOCS)


def make_text_tower(config: TextConfig) -> TextTower:
    """The text tower that --text_tower names, with its weights in float32.

    It is a class (`module:Class`, called with the config), a Hugging Face encoder (hf:...), or a
    model of open_clip. ConfigError where the flags contradict each other or the class does not fit,
    WeightsError where the weights cannot be loaded.
    """
    ours = not (is_hugging_face(config) or is_custom(config))
    if config.text_activation not in ("auto", "model") and not ours:
        problem = f"is {config.text_activation}, which is for open_clip models alone"
        raise ConfigError("--text_activation", problem, "leave it out")
    if is_hugging_face(config):
        return make_hf_tower(config.text_tower.removeprefix("hf:"))
    return _custom_text_tower(config) if is_custom(config) else make_clip_tower(config)


def _custom_text_tower(config: TextConfig) -> TextTower:
    name = config.text_tower
    tower_class = load_class("--text_tower", name, TextTower, TEXT_DOCS)
    if config.text_weights == TextConfig.text_weights:
        problem = f"{config.text_weights} is a tag of open_clip, and --text_tower is {name}"
        fix = "give none to train the tower from scratch, or what its class loads"
        raise ConfigError("--text_weights", problem, fix)
    # nn.Module does not say what its subclasses are called with
    tower = cast(TextTower, cast(Any, tower_class)(config))
    with torch.random.fork_rng(), torch.inference_mode():
        training = tower.training
        output = tower.eval()(*tower.tokenize(TEST_CAPTIONS))
        tower.train(training)
    expected = (len(TEST_CAPTIONS), getattr(tower, "dim", None))
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    if shape != expected:
        kind = f"a {type(output).__name__}" if shape is None else f"{shape} for 2 captions"
        problem = f"forward of {name} returns {kind}, and its dim is {expected[1]}"
        fix = "return a tensor (captions, dim), and set self.dim in __init__"
        raise ConfigError("--text_tower", problem, fix)
    return tower
