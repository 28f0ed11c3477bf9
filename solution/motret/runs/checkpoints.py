"""Models of a run: fresh, as a fold's training begins, or opened, as it ended."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from motret.config.training import TrainConfig
from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.errors import RunError, WeightsError
from motret.models import layers, text_tower
from motret.models.dual_encoder import DualEncoder
from motret.runs import provenance
from motret.runs.run import Run
from motret.utils import files


def build_model(
    config: TrainConfig, run: Run, columns: dict[str, slice], tower: text_tower.ClipTower | text_tower.HfTower, seed: int
) -> DualEncoder:
    """A fresh model; its first weights follow from the seed alone.

    A pretrained tower that trains is copied: trained in place it would carry what one fold learned into the next.
    """
    trains = text_tower.is_trained(config.text)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if trains:
            tower = text_tower.make_text_tower(config.text) if text_tower.trains_from_scratch(config.text) else copy.deepcopy(tower)
        model = DualEncoder(config, run.persons, columns, tower.dim, tower if trains else None)
    if config.fit.grad_checkpoint:
        layers.enable_grad_checkpointing(model.motion_tower, config.motion.motion_tower)
        if trains:
            layers.enable_grad_checkpointing(model.text_tower, config.text.text_tower)
    return model


def fold_seed(config: TrainConfig, fold: int | None) -> int:
    """The number that all random choices of a fold's training follow from."""
    return config.machine.seed * 1000 + (999 if fold is None else fold)


def init_model(
    run: Run,
    data: TrainingData,
    motions: MotionTensors,
    tower: text_tower.ClipTower | text_tower.HfTower,
    fold: int | None,
    learn: np.ndarray,
) -> DualEncoder:
    """The model of a fold as its training begins, but for published weights; learn: rows of the motions it will learn from."""
    model = build_model(run.config, run, data.store.columns, tower, fold_seed(run.config, fold)).to(motions.device)
    model.set_statistics(*motions.statistics(torch.from_numpy(learn).to(motions.device)))
    return model


def load_model(
    run: Run, part: int | None, columns: dict[str, slice], tower: text_tower.ClipTower | text_tower.HfTower, device: torch.device
) -> tuple[DualEncoder, int]:
    """The finished model of a fold, or of all motions (None), and the epoch that was kept of it; columns: of the features.

    RunError where the text tower or the features are not those the run was trained with.
    """
    provenance.check_inputs(run, tower)
    model = build_model(run.config, run, columns, tower, 0).to(device)
    return model, load_weights(best_checkpoint(run.part(part)), model, device)["epoch"]


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Saves tensors and plain values, whole or not at all."""
    files.atomic_write(path, lambda beside: torch.save(content, beside))


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Reads a checkpoint safely. WeightsError where it is missing or broken."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as missing:
        raise WeightsError(path, "no such checkpoint", "train the run again") from missing
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError) as broken:
        raise WeightsError(path, "is no readable checkpoint", "remove it and train with --resume auto") from broken


def load_weights(path: Path, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Puts the weights of a checkpoint into a model and returns the checkpoint. WeightsError where they do not fit."""
    kept = load_checkpoint(path, device)
    try:
        model.load_state_dict(kept["model"])
    except (RuntimeError, KeyError, TypeError) as other:
        reason = str(other).strip().splitlines()[-1].strip()
        raise WeightsError(path, f"holds another model ({reason})", "use the code it was trained with, or train again") from other
    return kept


def best_checkpoint(part: Path) -> Path:
    """The checkpoint a finished fold is judged by."""
    found = sorted(part.glob("best_epoch*.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise RunError(part, "has no best_epoch<N>.pt", "train it again with --resume auto")
    return found[-1]
