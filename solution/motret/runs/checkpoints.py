"""Checkpoints of a run, and its models: as training begins, and as it ended."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from motret.config.training import TrainConfig
from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.errors import RunError, WeightsError
from motret.models import layers, registry, text_tower
from motret.models.dual_encoder import DualEncoder
from motret.models.text_tower import TextTower
from motret.runs import provenance
from motret.runs.run import Run, training_command
from motret.utils import files, reading
from motret.utils.tensors import load_tensors

FORMER_PARAMETERS = {"to_qkv": "qkv", "from_heads": "proj", "summary": "cls_token"}
"""Modules and parameters of a motion tower by the names that earlier checkpoints give them."""
FORMER_KEYS = {"optimiser": "optimizer", "highest": "base_lr"}
"""Keys of a checkpoint and of its optimizer's parameter groups by the names of earlier ones."""
BACKBONE_POSITIONS = ("backbone.positions", "backbone.sequence_embedding")
"""Parameters that only the motion towers with a backbone have."""


def build_model(
    config: TrainConfig, run: Run, columns: dict[str, slice], tower: TextTower, seed: int
) -> DualEncoder:
    """A model with random weights, which follow from the seed alone; a frozen tower is left out.

    A pretrained tower that trains is copied: trained in place it would carry what one fold learns
    into the next.
    """
    trains = text_tower.is_trained(config.text)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if text_tower.trains_from_scratch(config.text):
            tower = registry.make_text_tower(config.text)
        elif trains:
            tower = copy.deepcopy(tower)
        model = DualEncoder(config, run.persons, columns, tower.dim, tower if trains else None)
    if config.fit.grad_checkpoint:
        layers.enable_grad_checkpointing(model.motion_tower, config.motion.motion_tower)
        if model.text_tower is not None:
            layers.enable_grad_checkpointing(model.text_tower, config.text.text_tower)
    return model


def fold_seed(config: TrainConfig, fold: int | None) -> int:
    """The seed of all random choices of a fold's training."""
    return config.machine.seed * 1000 + (999 if fold is None else fold)


def init_model(
    run: Run,
    data: TrainingData,
    motions: MotionTensors,
    tower: TextTower,
    fold: int | None,
    train_idx: np.ndarray,
) -> DualEncoder:
    """The model of a fold as its training begins, but for published weights.

    train_idx: the motions it learns from, which its feature statistics are of.
    """
    seed = fold_seed(run.config, fold)
    model = build_model(run.config, run, data.store.columns, tower, seed).to(motions.device)
    model.set_statistics(*motions.statistics(torch.from_numpy(train_idx)))
    return model


def load_model(
    run: Run, fold: int | None, columns: dict[str, slice], tower: TextTower, device: torch.device
) -> tuple[DualEncoder, int]:
    """The finished model of a fold, or of all motions (None), and the epoch of its checkpoint.

    columns: of the features. RunError where the text tower or the features are not those the run
    was trained with.
    """
    provenance.check_inputs(run, tower)
    model = build_model(run.config, run, columns, tower, 0).to(device)
    path = best_checkpoint(run.fold_dir(fold))
    epoch = load_weights(path, model, device).get("epoch")
    if not isinstance(epoch, int):
        problem, fix = "does not say of which epoch it is", training_command(path.parent)
        raise WeightsError(path, problem, f"remove it, then {fix}")
    return model, epoch


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Saves tensors and plain values, whole or not at all."""
    files.write_stream(path, lambda stream: torch.save(content, stream))


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint, under today's parameter names; nothing in the file is run.

    WeightsError where it is missing or broken.
    """
    fix = training_command(path.parent)
    if not reading.is_file(path, WeightsError):
        raise WeightsError(path, "no such checkpoint", fix)
    content = load_tensors(path, f"remove it, then {fix}", device)
    with reading.boundary(path, "is no readable checkpoint", fix, WeightsError):
        renamed: dict[str, Any] = _with_current_names(content)
    if not isinstance(renamed, dict):
        raise WeightsError(path, "is no checkpoint of a training", f"remove it, then {fix}")
    return renamed


def load_weights(path: Path, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Loads a checkpoint's weights into a model. WeightsError where they do not fit.

    Returns the content of the checkpoint.
    """
    checkpoint = load_checkpoint(path, device)
    try:
        model.load_state_dict(checkpoint["model"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        fix = "use the code it was trained with, or train with another --run_name"
        raise WeightsError(path, f"holds another model ({reason})", fix) from error
    return checkpoint


def best_checkpoint(fold_dir: Path) -> Path:
    """The checkpoint that is a fold's finished model. RunError where there is none."""
    checkpoints = sorted(fold_dir.glob("best_epoch*.pt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise RunError(fold_dir, "has no best_epoch<N>.pt", training_command(fold_dir))
    return checkpoints[-1]


def _with_current_names(content: Any) -> Any:
    """The content of a checkpoint with today's names for `FORMER_PARAMETERS` and `FORMER_KEYS`.

    Parameters are named in state dicts (of the model, its average, or a motion tower alone) and in
    lists. A tower of one's own keeps its names.
    """
    if isinstance(content, list):
        return [
            _rename_parameter(item) if isinstance(item, str) else _with_current_names(item)
            for item in content
        ]
    if not isinstance(content, dict):
        return content
    prefix = _motion_tower_prefix(content)
    renamed = {}
    for name, value in content.items():
        if prefix is not None and name.startswith(prefix):
            name = _rename_parameter(name)
        renamed[FORMER_KEYS.get(name, name)] = _with_current_names(value)
    return renamed


def _rename_parameter(name: str) -> str:
    return ".".join(FORMER_PARAMETERS.get(module, module) for module in name.split("."))


def _motion_tower_prefix(state: dict[Any, Any]) -> str | None:
    """What stands before the parameters of a motion tower with a backbone; None without one."""
    for name in state:
        for positions in BACKBONE_POSITIONS:
            if isinstance(name, str) and name.endswith(positions):
                return name.removesuffix(positions)
    return None
