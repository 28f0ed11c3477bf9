"""Weights of CLIP's text towers: which activation they were trained with, and OpenAI's archives, read without running what is in them.

The same weights give other features under GELU than under QuickGELU (x * sigmoid(1.702 x)), and nothing in them says which is right.
"""

import collections
import functools
import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motret.config.training import TextConfig
from motret.errors import ConfigError, WeightsError

ACTIVATION_NAMES = {False: "GELU", True: "QuickGELU"}
ARCHIVE_PARTS = {"constants.pkl", "data.pkl"}
"""What a TorchScript archive holds and a state dict does not hold together."""
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
"""Kind of storage in an archive -> dtype."""


@dataclass(frozen=True)
class Activation:
    """The activation of a text tower: QuickGELU or GELU, and how that is known."""

    quick: bool
    reason: str

    def __str__(self) -> str:
        return f"{ACTIVATION_NAMES[self.quick]} ({self.reason})"


def choose_activation(config: TextConfig) -> Activation:
    """The activation for a pretrained open_clip model, by --text_activation. WeightsError where flag and weights contradict each other."""
    import open_clip

    name, weights, asked = config.text_tower, config.text_weights, config.text_activation
    about = open_clip.get_model_config(name)
    by_name = bool(about.get("quick_gelu", False))
    if about["text_cfg"].get("hf_model_name"):
        if asked not in ("auto", "model"):
            problem = f"the text half of {name} is a Hugging Face encoder with an activation of its own"
            raise ConfigError("--text_activation", problem, "leave it out")
        return Activation(by_name, "of the image half; the text half is a Hugging Face encoder")
    known = _activation_of_file(Path(weights)) if Path(weights).is_file() else _activation_of_tag(name, weights)
    if asked == "model":
        differs = f", although the weights need {ACTIVATION_NAMES[known.quick]}" if known and known.quick != by_name else ""
        return Activation(by_name, f"as the name {name} says{differs}")
    if asked == "auto":
        hint = "" if by_name else "; if they are OpenAI's, add --text_activation quick_gelu"
        return known or Activation(
            by_name,
            f"as the name {name} says, since nothing tells where the weights are from{hint}",
        )
    if known and known.quick != (asked == "quick_gelu"):
        problem = f"needs {known}, and --text_activation is {asked}"
        raise WeightsError(f"{name} {weights}", problem, "leave --text_activation out")
    return Activation(asked == "quick_gelu", "by --text_activation")


def _activation_of_tag(name: str, tag: str) -> Activation:
    from open_clip import pretrained

    return Activation(
        bool(pretrained.get_pretrained_cfg(name, tag).get("quick_gelu", False)),
        f"as the tag {tag} was trained",
    )


def _activation_of_file(path: Path) -> Activation | None:
    """The activation of a local file where it can be told: OpenAI's archive, a published checksum, or a configuration beside it."""
    if is_archive(path):
        return Activation(True, "OpenAI's archive form")
    if published := _published_activation(path):
        return published
    about = path.with_name("open_clip_config.json")
    try:
        model = json.loads(about.read_text(encoding="utf-8"))["model_cfg"]
        return Activation(bool(model.get("quick_gelu", False)), f"by {about.name} beside the file")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as broken:
        problem = f"cannot be read ({type(broken).__name__})"
        raise WeightsError(about, problem, "download it again, or remove it and give --text_activation") from broken


def _published_activation(path: Path) -> Activation | None:
    """By the SHA-256 that open_clip's download addresses hold: the whole of it for OpenAI's files, eight digits for some others."""
    if path.suffix not in (".pt", ".pth"):
        return None
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for model, tag, checksum, quick in _checksums():
        if digest.startswith(checksum):
            return Activation(quick, f"the checksum is that of {model} {tag}")
    return None


@functools.cache
def _checksums() -> tuple[tuple[str, str, str, bool], ...]:
    """Model, tag, first digits of the SHA-256 and activation of the files that are published with a checksum."""
    from open_clip import pretrained

    found = []
    for model, tag in pretrained.list_pretrained():
        about = pretrained.get_pretrained_cfg(model, tag)
        *_, folder, file = ("/" + about.get("url", "")).split("/")
        for word, digits in ((folder, 64), (Path(file).stem.rpartition("-")[2], 8)):
            if len(word) == digits and set(word) <= set("0123456789abcdef"):
                found.append((model, tag, word, bool(about.get("quick_gelu", False))))
    return tuple(found)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI published CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {Path(name).name for name in archive.namelist()} >= ARCHIVE_PARTS


def read_archive(path: Path) -> dict[str, Tensor]:
    """Every tensor of a TorchScript archive by its dotted name. Its code is neither compiled nor run. ValueError where it is damaged.

    Not `torch.jit.load`, which compiles and runs code of the file, and which torch has deprecated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(f"{root}data.pkl") as stream:
                return dict(_tensors(_ArchiveUnpickler(stream, archive, f"{root}data/").load(), ""))
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        StopIteration,
        LookupError,
        EOFError,
        RuntimeError,
        TypeError,
    ) as broken:
        raise ValueError(f"the archive is damaged: {broken}") from broken


class _Module:
    """A module of the archive: its attributes, no code."""


class _ArchiveUnpickler(pickle.Unpickler):
    """Makes tensors and `_Module`s and nothing else."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, storages: str):
        super().__init__(stream)
        self.archive, self.storages = archive, storages

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in it")

    def persistent_load(self, pid: tuple) -> Tensor:
        _, dtype, key, _, size = pid
        content = bytearray(self.archive.read(f"{self.storages}{key}"))
        return torch.frombuffer(content, dtype=dtype, count=size) if size else torch.empty(0, dtype=dtype)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
