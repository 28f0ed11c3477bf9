"""What the models of a run were made from besides data and folds: digests of the text tower and of the features, and their check.

They stand in a run's args.json. Whoever opens one of its models compares them with what there is now, since a model that reads its
captions through other weights, other tokens or other features ranks otherwise without a word.
"""

import functools
import hashlib
import json
import weakref
from pathlib import Path

import torch
from torch import nn

from motret.config.training import TrainConfig
from motret.data import caption_mirror, features
from motret.errors import RunError
from motret.models import text_tower
from motret.runs.run import Run
from motret.utils import files

WEIGHTS, TOKENIZER, FEATURES = "text weights", "text tokenizer", "feature version"
SENTENCES = (
    "a person walks forward, turns left and sits down.",
    "Two people shake hands; then the first one bows to the other.",
    "someone kicks with the right leg 3 times, jumps & waves both arms above the head!",
    "il s'accroupit puis lève le bras gauche",
    "",
)
"""Tokenised to tell one tokenizer from another."""
_known: weakref.WeakKeyDictionary[nn.Module, dict[str, str]] = weakref.WeakKeyDictionary()


def input_digests(config: TrainConfig, tower: nn.Module) -> dict[str, str]:
    """What a run with these settings is made from now. tower: its text tower, as it was loaded.

    A tower from scratch has no weights of its own before it is trained.
    """
    if tower not in _known:
        _known[tower] = (
            {TOKENIZER: _tokenizer_digest(tower)}
            if text_tower.trains_from_scratch(config.text)
            else text_tower_digests(tower)
        )
    return {FEATURES: str(features.FEATURE_VERSION), **_known[tower]}


def text_tower_digests(tower: nn.Module) -> dict[str, str]:
    """Digests of a text tower: of every weight by name, with its activation's kind, and of its tokenizer."""
    content = hashlib.blake2b(digest_size=8)
    for name, value in sorted(tower.state_dict().items()):
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    quick = any("quickgelu" in type(module).__name__.lower() for module in tower.modules())
    content.update(str(quick).encode())
    return {WEIGHTS: content.hexdigest(), TOKENIZER: _tokenizer_digest(tower)}


def check_inputs(run: Run, tower: nn.Module, resumed: bool = False) -> None:
    """RunError where a run was made from something else than there is now, by name. A run of before digests were kept is not checked.

    resumed: it is trained on. Otherwise the weights of a text tower that was trained do not matter: its checkpoints hold them.
    """
    if run.inputs is None:
        _say_unchecked(run.folder)
        return
    here = input_digests(run.config, tower)
    for name in here:
        if name == WEIGHTS and text_tower.is_trained(run.config.text) and not resumed:
            continue
        if name in run.inputs and run.inputs[name] != here[name]:
            problem = (
                f"its {name} changed since it was trained ({run.inputs[name]}, now {here[name]})"
            )
            raise RunError(run.folder, problem, _fix_for(name, run))


def caption_rules() -> str:
    """Changes with the rules by which captions are mirrored."""
    return caption_mirror.RULES


@functools.cache
def _say_unchecked(folder: Path) -> None:
    """Says once of a run that it cannot be checked."""
    print(
        f"{folder}: made before runs kept digests of their text tower, which is therefore not checked"
    )


def _fix_for(name: str, run: Run) -> str:
    """What to do about inputs that changed. It holds for run_all.sh too, which names its runs itself."""
    text = run.config.text
    weights = "" if text.text_tower.startswith("hf:") else f" {text.text_weights}"
    restore = (
        "use the code it was trained with"
        if name == FEATURES
        else f"put {text.text_tower}{weights} back as it was"
    )
    return f"{restore}, or move the run's folder out of {run.folder.parent} and run the same command again"


def _tokenizer_digest(tower: nn.Module) -> str:
    """Of a tower's tokenizer: its vocabulary, and the tokens of some sentences."""
    ids, lengths = tower.tokenize(SENTENCES)
    words = tower.vocabulary()
    vocabulary = json.dumps(sorted(words.items())) if words else ""
    return files.content_hash(vocabulary, ids.tolist(), lengths.tolist())
