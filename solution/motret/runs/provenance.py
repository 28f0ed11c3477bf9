"""What the models of a run are made from besides data and folds: digests, and their check.

A run's args.json has digests of its text tower and of its features. They are compared with today's
when one of its models is opened: a model that reads its captions through other weights, tokens or
features ranks otherwise without an error.
"""

import functools
import hashlib
import json
import logging
import weakref
from pathlib import Path

import torch

from motret.config.training import TrainConfig
from motret.data import caption_mirror, features
from motret.data.feature_blocks import block_versions
from motret.errors import RunError
from motret.models import text_tower
from motret.models.text_tower import TextTower
from motret.runs.run import Run
from motret.utils import files

logger = logging.getLogger(__name__)

WEIGHTS, TOKENIZER, FEATURES = "text weights", "text tokenizer", "feature version"
SENTENCES = (
    "a person walks forward, turns left and sits down.",
    "Two people shake hands; then the first one bows to the other.",
    "someone kicks with the right leg 3 times, jumps & waves both arms above the head!",
    "il s'accroupit puis lève le bras gauche",
    "",
)
"""Tokenised to distinguish tokenizers."""
_digests: weakref.WeakKeyDictionary[TextTower, dict[str, str]] = weakref.WeakKeyDictionary()


def input_digests(config: TrainConfig, tower: TextTower) -> dict[str, str]:
    """Digests of what a run with these settings is made from now.

    tower: its text tower, as it was loaded. One from scratch has no weights before it is trained.
    """
    if tower not in _digests:
        if text_tower.trains_from_scratch(config.text):
            _digests[tower] = {TOKENIZER: _tokenizer_digest(tower)}
        else:
            _digests[tower] = text_tower_digests(tower)
    return {FEATURES: _feature_version(config), **_digests[tower]}


def text_tower_digests(tower: TextTower) -> dict[str, str]:
    """Digests of a text tower: of its weights by name with its activation, and of its tokenizer."""
    content = hashlib.blake2b(digest_size=8)
    for name, value in sorted(tower.state_dict().items()):
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content.update(raw.numpy().data)
    quick = any("quickgelu" in type(module).__name__.lower() for module in tower.modules())
    content.update(str(quick).encode())
    return {WEIGHTS: content.hexdigest(), TOKENIZER: _tokenizer_digest(tower)}


def check_inputs(run: Run, tower: TextTower, resumed: bool = False) -> None:
    """RunError where a run was made from something else than there is now, by name.

    resumed: the run is trained on. Otherwise the weights of a text tower that was trained do not
    matter: its checkpoints hold them. A run of before digests were recorded is not checked.
    """
    if run.inputs is None:
        _report_unchecked(run.folder)
        return
    trained = text_tower.is_trained(run.config.text) and not resumed
    for name, digest in input_digests(run.config, tower).items():
        if name == WEIGHTS and trained:
            continue
        recorded = run.inputs.get(name, digest)
        if name == FEATURES and len(recorded.split()) == 1:
            digest = digest.split()[0]  # of before versions of blocks were recorded, or without any
        if recorded != digest:
            problem = f"its {name} changed since it was trained ({recorded}, now {digest})"
            raise RunError(run.folder, problem, _fix_for(name, run, recorded, digest))


def caption_rules() -> str:
    """Changes with the rules by which captions are mirrored."""
    return caption_mirror.RULES


@functools.cache  # once for each run
def _report_unchecked(folder: Path) -> None:
    logger.info(
        f"{folder}: made before runs kept digests of their text tower, "
        "which is therefore not checked"
    )


def _feature_version(config: TrainConfig) -> str:
    """The version of features, then `name=version` of each block besides raw and the canonical
    ones."""
    versions = block_versions(config.motion.features)
    blocks = (f"{name}={version}" for name, version in versions.items())
    return " ".join([str(features.FEATURE_VERSION), *blocks])


def _fix_for(name: str, run: Run, recorded: str, digest: str) -> str:
    """What to do about inputs that changed; holds for run_all.sh too, which names its runs."""
    text = run.config.text
    weights = "" if text_tower.is_hugging_face(text) else f" {text.text_weights}"
    restore = f"put {text.text_tower}{weights} back as it was"
    if name == FEATURES:
        restore = "use the code it was trained with"
        changed = [block for block in recorded.split() if block not in digest.split()]
        if changed and all("=" in block for block in changed):
            pairs = (block.rsplit("=", 1) for block in changed)
            versions = " and ".join(f"version {number} of block {name}" for name, number in pairs)
            restore = f"put {versions} back into feature_blocks.BLOCKS"
    folder = run.folder.parent
    return f"{restore}, or move the run's folder out of {folder} and run the same command again"


def _tokenizer_digest(tower: TextTower) -> str:
    """Digest of a tower's tokenizer: its vocabulary, and the tokens of some sentences."""
    ids, lengths = tower.tokenize(SENTENCES)
    words = tower.vocabulary()
    vocabulary = json.dumps(sorted(words.items())) if words else ""
    return files.content_hash(vocabulary, ids.tolist(), lengths.tolist())
