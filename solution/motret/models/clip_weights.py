"""Weights of CLIP's text towers: their activation, and OpenAI's archives read without their code.

The same weights give other features under GELU than under QuickGELU (x * sigmoid(1.702 x)), and
nothing in them shows which is right.
"""

import collections
import functools
import hashlib
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from motret.config.training import TextConfig
from motret.errors import ConfigError, WeightsError
from motret.utils import reading
from motret.utils.tensors import MAX_UNPACKING

ACTIVATION_NAMES = {False: "GELU", True: "QuickGELU"}
ARCHIVE_FILES = {"constants.pkl", "data.pkl"}
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
    """The activation for a pretrained open_clip model, by --text_activation.

    ConfigError where the model takes no such flag, WeightsError where flag and weights contradict
    each other.
    """
    import open_clip

    name, weights, flag = config.text_tower, config.text_weights, config.text_activation
    model_config = open_clip.get_model_config(name)
    quick_by_name = bool(model_config.get("quick_gelu", False))
    if model_config["text_cfg"].get("hf_model_name"):
        if flag not in ("auto", "model"):
            problem = f"the text half of {name} is a Hugging Face encoder with its own activation"
            raise ConfigError("--text_activation", problem, "leave it out")
        reason = "of the image half; the text half is a Hugging Face encoder"
        return Activation(quick_by_name, reason)
    is_file = Path(weights).is_file()
    trained = _activation_of_file(Path(weights)) if is_file else _activation_of_tag(name, weights)
    if flag == "model":
        contradicts = trained is not None and trained.quick != quick_by_name
        needed = ACTIVATION_NAMES[not quick_by_name]
        although = f", although the weights need {needed}" if contradicts else ""
        return Activation(quick_by_name, f"as the name {name} says{although}")
    if flag == "auto":
        hint = "" if quick_by_name else "; if they are OpenAI's, add --text_activation quick_gelu"
        reason = f"as the name {name} says, since nothing shows where the weights are from{hint}"
        return trained or Activation(quick_by_name, reason)
    if trained and trained.quick != (flag == "quick_gelu"):
        problem = f"needs {trained}, and --text_activation is {flag}"
        raise WeightsError(f"{name} {weights}", problem, "leave --text_activation out")
    return Activation(flag == "quick_gelu", "by --text_activation")


def _activation_of_tag(name: str, tag: str) -> Activation:
    from open_clip import pretrained

    quick = bool(pretrained.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    return Activation(quick, f"as the tag {tag} was trained")


def _activation_of_file(path: Path) -> Activation | None:
    """The activation of a local file, None where nothing shows it.

    OpenAI's archive form shows it, a published checksum, or a configuration in the same folder.
    """
    if is_archive(path):
        return Activation(True, "OpenAI's archive form")
    if published := _published_activation(path):
        return published
    config_path = path.with_name("open_clip_config.json")
    if not reading.is_file(config_path, WeightsError):
        return None
    fix = "download it again, or remove it and give --text_activation"
    content = reading.read_json_object(config_path, fix, WeightsError)
    with reading.boundary(config_path, "cannot be read", fix, WeightsError):
        quick = bool(content["model_cfg"].get("quick_gelu", False))
    return Activation(quick, f"by {config_path.name} beside the file")


def _published_activation(path: Path) -> Activation | None:
    """The activation by the file's SHA-256, None where no such file is published.

    open_clip's download addresses hold the whole of it for OpenAI's files, eight digits for some
    others.
    """
    if path.suffix not in (".pt", ".pth"):
        return None
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for model, tag, checksum, quick in _published_checksums():
        if digest.startswith(checksum):
            return Activation(quick, f"the checksum is that of {model} {tag}")
    return None


@functools.cache
def _published_checksums() -> tuple[tuple[str, str, str, bool], ...]:
    """Model, tag, first digits of the SHA-256 and activation of files published with a checksum."""
    from open_clip import pretrained

    checksums = []
    for model, tag in pretrained.list_pretrained():
        config = pretrained.get_pretrained_cfg(model, tag)
        *_, folder, file_name = ("/" + config.get("url", "")).split("/")
        for word, digits in ((folder, 64), (Path(file_name).stem.rpartition("-")[2], 8)):
            if len(word) == digits and set(word) <= set("0123456789abcdef"):
                checksums.append((model, tag, word, bool(config.get("quick_gelu", False))))
    return tuple(checksums)


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI published CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {Path(name).name for name in archive.namelist()} >= ARCHIVE_FILES


def read_archive(path: Path) -> dict[str, Tensor]:
    """Every tensor of a TorchScript archive by its dotted name; its code is not run.

    Not `torch.jit.load`, which compiles and runs code of the file, and which torch has deprecated.
    WeightsError where the archive is damaged.
    """
    size = path.stat().st_size
    with (
        reading.boundary(path, "the archive is damaged", "download it again", WeightsError),
        zipfile.ZipFile(path) as archive,
    ):
        reading.check_unpacked_size(path, archive, MAX_UNPACKING * size, WeightsError)
        names = archive.namelist()
        root = next(name for name in names if name.endswith("/data.pkl"))[: -len("data.pkl")]
        with archive.open(f"{root}data.pkl") as stream:
            module = _ArchiveUnpickler(stream, archive, f"{root}data/").load()
            return dict(_tensors_of(module, ""))


class _Module:
    """A module of the archive: its attributes, no code."""


class _ArchiveUnpickler(pickle.Unpickler):
    """Makes tensors and `_Module`s and nothing else."""

    def __init__(self, stream: IO[bytes], archive: zipfile.ZipFile, storage_dir: str):
        super().__init__(stream)
        self.archive, self.storage_dir = archive, storage_dir

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

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, size = pid
        content = bytearray(self.archive.read(f"{self.storage_dir}{key}"))
        if not size:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(content, dtype=dtype, count=size)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _tensors_of(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors_of(value, f"{prefix}{name}.")
