"""Towers by name: those of this package, and classes of one's own as `module:Class`."""

import inspect
from collections.abc import Callable, Sequence
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
from motret.utils import reading

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
PADDING_TOLERANCE = 1e-3
"""By how much of its norm the padding may change a caption's vector."""


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
    try:
        inspect.signature(tower_class).bind(config)
    except TypeError as error:
        problem, fix = "__init__ does not take the config", "write __init__(self, config)"
        raise ConfigError("--text_tower", f"{name}: {problem}", fix) from error
    # nn.Module does not say what its subclasses are called with
    tower = cast(TextTower, _call(name, "__init__ failed", cast(Any, tower_class), config))
    with torch.random.fork_rng(), torch.inference_mode():
        training = tower.training
        tower.eval()
        ids, lengths = _tokenize(name, tower, TEST_CAPTIONS, "the trial captions")
        _encode(name, tower, ids, lengths, "the trial captions")
        tower.train(training)
    return tower


def check_text_tower(config: TextConfig, tower: TextTower, captions: Sequence[str]) -> None:
    """ConfigError where a class of one's own does not fit the captions it is trained on.

    All captions are tokenised. The shortest, the longest and that with the highest id are encoded
    together, and the shortest alone: padding must not change its vector.
    """
    if not is_custom(config):
        return
    name, source = config.text_tower, "the captions of the data"
    with torch.random.fork_rng(), torch.inference_mode():
        training = tower.training
        tower.eval()
        distinct = sorted({*TEST_CAPTIONS, *captions})
        ids, lengths = _tokenize(name, tower, distinct, source)
        indices = torch.stack([lengths.argmin(), lengths.argmax(), ids.amax(dim=1).argmax()])
        ids, lengths = ids[indices], lengths[indices]
        ids = ids[:, : int(lengths.max())]
        together = _encode(name, tower, ids, lengths, source)[0].float()
        alone = _encode(name, tower, ids[:1, : int(lengths[0])], lengths[:1], source)[0].float()
        tower.train(training)
    difference = float((together - alone).norm())
    if difference > PADDING_TOLERANCE * float(alone.norm()):
        relative = difference / max(float(alone.norm()), 1e-12)
        problem = f"{name}: padding changes the vector of a caption by {relative:.1%} of its norm"
        fix = (
            "mask the padding, or use pack_padded_sequence for an RNN; "
            "in eval mode nothing may be random"
        )
        raise ConfigError("--text_tower", problem, fix)


def _tokenize(
    name: str, tower: TextTower, captions: Sequence[str], source: str
) -> tuple[Tensor, Tensor]:
    """Token ids (C, L) and lengths (C,). ConfigError where `tokenize` gives anything else."""
    output = _call(name, f"tokenize failed on {source}", tower.tokenize, captions)
    if problem := _token_problem(output, len(captions)):
        fix = "return two tensors, ids (captions, L) and lengths (captions,) from 1 to L"
        raise ConfigError("--text_tower", f"{name}: tokenize {problem}", fix)
    ids, lengths = output
    return ids, lengths


def _token_problem(output: object, count: int) -> str:
    """What is wrong with the output of `tokenize` for `count` captions; empty if nothing is."""
    if not isinstance(output, tuple | list):
        return f"returns a {type(output).__name__} alone"
    if len(output) != 2:
        return f"returns {len(output)} values"
    for label, value, dims in zip(("ids", "lengths"), output, (2, 1), strict=True):
        if not isinstance(value, Tensor):
            return f"returns {label} as a {type(value).__name__}"
        if value.ndim != dims or len(value) != count:
            return f"returns {label} {tuple(value.shape)} for {count} captions"
    columns, low, high = output[0].shape[1], int(output[1].min()), int(output[1].max())
    if low < 1:
        return f"gives a caption {low} tokens"
    if high > columns:
        return f"gives a caption {high} tokens, and ids have {columns} columns"
    return ""


def _encode(name: str, tower: TextTower, ids: Tensor, lengths: Tensor, source: str) -> Tensor:
    """(C, dim) vectors. ConfigError where `forward` gives anything else."""
    output = _call(name, f"forward failed on {source}", tower, ids, lengths)
    expected = (len(ids), getattr(tower, "dim", None))
    shape = tuple(output.shape) if isinstance(output, Tensor) else None
    if shape != expected:
        kind = f"a {type(output).__name__}"
        kind = kind if shape is None else f"{shape} for {len(ids)} captions"
        problem = f"forward of {name} returns {kind}, and its dim is {expected[1]}"
        fix = "return a tensor (captions, dim), and set self.dim in __init__"
        raise ConfigError("--text_tower", problem, fix)
    return cast(Tensor, output)


def _call(name: str, failure: str, function: Callable[..., Any], *args: object) -> Any:
    """What a function of the class `name` returns. ConfigError where it raises an error."""
    fix = "correct the class; --debug shows where"
    problem = f"{name}: {failure}"
    with reading.boundary("--text_tower", problem, fix, ConfigError, describe=_named_reason):
        return function(*args)


def _named_reason(error: Exception) -> str:
    """Class and message of an error, in one line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
