"""The files of a pretrained text tower on this machine, copied so that no name needs a network."""

import shutil
from pathlib import Path

from motret.config.training import TextConfig
from motret.errors import WeightsError
from motret.models import clip_weights, text_tower
from motret.utils import files, network

UNUSED = ("*.bin", "*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx", "openvino", "coreml", ".*")
"""Files and folders of an encoder that are not read: weights in other forms."""
IGNORED = [pattern if "." in pattern else f"{pattern}/*" for pattern in UNUSED]
"""The same as the hub client takes them."""
CLIP_CONFIG = "open_clip_config.json"


def copy_tower(text: TextConfig, target: Path) -> Path | None:
    """Copies the tower of these settings; returns the folder (hf:) or file that flags may name.

    None for a class of one's own that names no file. WeightsError where the files are not here.
    """
    if text_tower.is_hugging_face(text):
        source = _encoder_folder(text.text_tower.removeprefix("hf:"))
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*UNUSED))
        return target
    weights = Path(text.text_weights)
    if text_tower.is_custom(text) and not weights.exists():
        return None
    if weights.is_dir():
        shutil.copytree(weights, target)
        return target
    source = weights if weights.is_file() else _tag_file(text)
    target.mkdir(parents=True)
    copy = Path(shutil.copy(source, target))
    config = weights.with_name(CLIP_CONFIG)
    if weights.is_file() and config.is_file():
        shutil.copy(config, target)
    elif not weights.is_file():
        # a tag says with which activation its weights were trained, and a file does not
        quick = clip_weights.choose_activation(text).quick
        files.write_json(target / CLIP_CONFIG, {"model_cfg": {"quick_gelu": quick}})
    return copy


def _encoder_folder(name: str) -> Path:
    """The folder of a Hugging Face encoder, given by its folder or its name."""
    return Path(name) if Path(name).is_dir() else _hub_snapshot(f"hf:{name}", name)


def _hub_snapshot(what: str, repository: str) -> Path:
    """A folder with a repository of the hub, from the hub client's cache where the hub cannot be
    reached. WeightsError where that has nothing of it."""
    offline = not network.hub_reachable()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(repository, local_files_only=offline, ignore_patterns=IGNORED)
        )
    except (LocalEntryNotFoundError, ValueError, OSError) as error:
        problem = "its files are not on this machine, nor can they be downloaded"
        fix = "pack where the hub can be reached, or give its folder or file"
        raise WeightsError(what, problem, fix) from error


def _tag_file(text: TextConfig) -> Path:
    """The file with the weights of an open_clip tag."""
    import open_clip

    what = f"{text.text_tower} {text.text_weights}"
    source = open_clip.get_pretrained_cfg(text.text_tower, text.text_weights)
    repository = source.get("hf_hub", "").strip("/")
    if not repository:
        problem = "no file, nor a tag whose weights come from the hub"
        raise WeightsError(what, problem, "give the file: --text_weights FILE")
    snapshot = _hub_snapshot(what, repository)
    weights = sorted(snapshot.glob("*.safetensors"))
    if not weights:
        raise WeightsError(
            what, f"{snapshot} holds no weights", "give the file: --text_weights FILE"
        )
    return weights[0]
