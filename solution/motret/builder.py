"""Models of a run: fresh, as a fold's training begins, or opened, as it ended."""

import copy

import numpy as np
import torch

from motret import layers, provenance, runs, text
from motret.batches import Motions
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.model import DualEncoder
from motret.runs import Run


def build_model(
    settings: TrainSettings, run: Run, columns: dict[str, slice], tower: text.ClipTower | text.HfTower, seed: int
) -> DualEncoder:
    """A fresh model; its first weights follow from the seed alone.

    A pretrained tower that trains is copied: trained in place it would carry what one fold learned into the next.
    """
    trains = text.trains(settings.text)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if trains:
            tower = text.make_tower(settings.text) if text.from_scratch(settings.text) else copy.deepcopy(tower)
        model = DualEncoder(settings, run.persons, columns, tower.dim, tower if trains else None)
    if settings.fit.grad_checkpoint:
        layers.recompute(model.motion_tower, settings.motion.motion_tower)
        if trains:
            layers.recompute(model.text_tower, settings.text.text_tower)
    return model


def stream_of(settings: TrainSettings, fold: int | None) -> int:
    """The number that all random choices of a fold's training follow from."""
    return settings.machine.seed * 1000 + (999 if fold is None else fold)


def fresh_model(
    run: Run, data: TrainingData, motions: Motions, tower: text.ClipTower | text.HfTower, fold: int | None, learn: np.ndarray
) -> DualEncoder:
    """The model of a fold as its training begins, but for published weights; learn: rows of the motions it will learn from."""
    model = build_model(run.settings, run, data.store.columns, tower, stream_of(run.settings, fold)).to(motions.device)
    model.set_statistics(*motions.statistics(torch.from_numpy(learn).to(motions.device)))
    return model


def open_model(
    run: Run, part: int | None, columns: dict[str, slice], tower: text.ClipTower | text.HfTower, device: torch.device
) -> tuple[DualEncoder, int]:
    """The finished model of a fold, or of all motions (None), and the epoch that was kept of it; columns: of the features.

    RunFault where the text tower or the features are not those the run was trained with.
    """
    provenance.check(run, tower)
    model = build_model(run.settings, run, columns, tower, 0).to(device)
    return model, runs.load_weights(runs.best_checkpoint(run.part(part)), model, device)["epoch"]
