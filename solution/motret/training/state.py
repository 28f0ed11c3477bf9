"""A fold's training as it stands: model, optimizer, weight average and epochs so far; made, resumed
and saved here."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel

from motret.config.training import TrainConfig
from motret.errors import ConfigError, WeightsError
from motret.models import backbones, pretrained
from motret.models.backbones import Backbone
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints, history
from motret.runs.history import EpochStats
from motret.runs.run import training_command
from motret.training import optim
from motret.training.context import FoldContext
from motret.utils import reading

logger = logging.getLogger(__name__)


@dataclass
class FoldState:
    """What changes while a fold trains.

    scaler: scales the loss, under float16 alone; ema: the average of the weights, where --ema asks
    for one; loaded: names of the backbone's weights that came from a file; history: the epochs so
    far, of which the first `resumed_epochs` were trained before this process; best: the best value
    of the selection metric.
    """

    model: DualEncoder
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None = None
    loaded: tuple[str, ...] = ()
    history: list[EpochStats] = field(default_factory=list)
    best: float = -math.inf
    resumed_epochs: int = 0

    @property
    def eval_model(self) -> DualEncoder:
        """The model that is validated and saved: the average where there is one."""
        return self.model if self.ema is None else cast(DualEncoder, self.ema.module)

    def planned_epochs(self, config: TrainConfig) -> int:
        """Epochs in all, as far as known now: a time limit may end the training at any epoch."""
        return history.planned_epochs(config.fit, self.history)

    def is_finished(self, config: TrainConfig) -> bool:
        """Whether no further epoch is to be trained."""
        done = len(self.history) >= self.planned_epochs(config)
        return done or history.should_stop_early(self.history, config.checkpoint)

    def checkpoint(self) -> dict[str, Any]:
        """All that it takes to resume."""
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
        }
        content |= {"loaded": list(self.loaded)} | (
            {} if self.ema is None else {"ema": self.ema.state_dict()}
        )
        if self.scaler.is_enabled():
            content["scaler"] = self.scaler.state_dict()
        return content | {"history": [asdict(stats) for stats in self.history]}


def set_up(fold_context: FoldContext, log: logging.Logger) -> FoldState:
    """The state a fold's training begins with, or the state in its last.pt. log: the fold's log
    file."""
    config, context, last = (
        fold_context.config,
        fold_context.context,
        fold_context.fold_dir / "last.pt",
    )
    model = checkpoints.init_model(
        fold_context.run,
        fold_context.data,
        context.motions,
        fold_context.tower,
        fold_context.fold,
        fold_context.train_idx,
    )
    checkpoint = checkpoints.load_weights(last, model, context.device) if last.is_file() else None
    loaded = (
        load_backbone(model, config, log)
        if checkpoint is None
        else tuple(checkpoint.get("loaded", ()))
    )
    if config.optim.freeze_backbone:
        backbones.freeze(backbone_of(model, config, "--freeze_backbone"), loaded)
    optim.set_trainable(model, config.text)
    optimizer = optim.make_optimizer(model, config, loaded)
    ema = optim.start_ema(model, optimizer, config.optim.ema) if config.optim.ema else None
    state = FoldState(model, optimizer, context.make_scaler(), ema, loaded)
    if checkpoint is not None:
        fix = f"remove it: {training_command(last.parent)} trains the fold from its start"
        with reading.boundary(last, "is no training state", fix, WeightsError):
            _resume(state, checkpoint)
    return state


def _resume(state: FoldState, checkpoint: Mapping[str, Any]) -> None:
    """Sets all but the model's weights, which are loaded already. A checkpoint of weights alone has
    no optimizer."""
    if "optimizer" in checkpoint:
        state.optimizer.load_state_dict(checkpoint["optimizer"])
        if state.ema is not None:
            state.ema.load_state_dict(checkpoint["ema"])
        if state.scaler.is_enabled() and "scaler" in checkpoint:
            state.scaler.load_state_dict(checkpoint["scaler"])
    state.history = [history.restore_stats(stats) for stats in checkpoint["history"]]
    state.best, state.resumed_epochs = checkpoint["best"], len(state.history)


def backbone_of(model: DualEncoder, config: TrainConfig, flag: str) -> Backbone:
    """The backbone of the motion tower. ConfigError of the flag that needs one where the tower has
    none."""
    backbone: Backbone | None = getattr(model.motion_tower, "backbone", None)
    if backbone is None:
        problem = f"{config.motion.motion_tower} has no backbone"
        raise ConfigError(flag, problem, "leave the flag out, or take another --motion_tower")
    return backbone


def load_backbone(model: DualEncoder, config: TrainConfig, log: logging.Logger) -> tuple[str, ...]:
    """Loads --backbone_weights, if any; returns the names of the backbone's weights that came from
    the file."""
    if config.motion.weights_file is None:
        return ()
    loaded = pretrained.load_backbone_weights(
        backbone_of(model, config, "--backbone_weights"), config.motion
    )
    for each in (logger, log):
        each.info(loaded.summary)
    return loaded.names
