"""The training loop: one fold of one run, from folds and features to a checkpoint and out-of-fold embeddings."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from motret.config.training import TrainConfig
from motret.data import batching
from motret.errors import ConfigError, RunError
from motret.evaluation.metrics import Score
from motret.models import backbones, pretrained, text_tower
from motret.models.backbones import Backbone
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints, history, oof
from motret.runs.history import EpochCallback, EpochStats, PlotCallback
from motret.runs.oof import OutOfFold
from motret.training import grad_cache, objective, optim, validate, wise_ft
from motret.training.context import FoldContext, TrainContext
from motret.training.objective import BatchLoss
from motret.training.optim import lr_scale, make_optimizer
from motret.utils import files, progress

PlotFactory = Callable[
    [FoldContext],
    PlotCallback | None,
]
"""Makes the callback that draws pictures while a fold trains; None where the settings ask for none."""


def fit(
    fold_context: FoldContext,
    on_epoch_end: EpochCallback | None = None,
    make_plots: PlotFactory | None = None,
) -> Score | None:
    """Trains one fold (None: on all motions) from its last checkpoint on, to `oof.npz` or `done.json`.

    Returns the held-out score of the checkpoint that is kept. Shows a bar, or tells `watch`.
    """
    run, fold = fold_context.run, fold_context.fold
    run.fold_dir(fold).mkdir(parents=True, exist_ok=True)
    log = _open_log(run.fold_dir(fold) / "train_log.txt")
    try:
        return _fit(fold_context, on_epoch_end, make_plots, log)
    finally:
        for handler in log.handlers:
            handler.close()


def _fit(
    fold_context: FoldContext,
    watch: EpochCallback | None,
    make_plots: PlotFactory | None,
    log: logging.Logger,
) -> Score | None:
    run, fold, data, folds = fold_context.run, fold_context.fold, fold_context.data, fold_context.folds
    place, tower = fold_context.context, fold_context.tower
    config, part = run.config, run.fold_dir(fold)
    learn, held = fold_context.train_idx, fold_context.val_idx
    if len(learn) < 2:
        raise RunError(run.folder, f"fold {fold} leaves {len(learn)} motions to learn from", "use fewer folds or more data")
    if wise_ft.uses_wise_ft(config.text):
        wise_ft.candidate_alphas(run, fold, folds)  # its faults come before the work
    stream = checkpoints.fold_seed(config, fold)
    model = checkpoints.init_model(run, data, place.motions, tower, fold, learn)
    draw = make_plots(fold_context) if make_plots else None
    before = checkpoints.load_weights(part / "last.pt", model, place.device) if (part / "last.pt").is_file() else None
    loaded = tuple(before.get("loaded", ())) if before else load_backbone(model, config, log)
    if config.optim.freeze_backbone:
        backbones.freeze(backbone_of(model, config, "--freeze_backbone"), loaded)
    optim.set_trainable(model, config.text)
    optimiser = make_optimizer(model, config, loaded)
    ema = optim.start_ema(model, optimiser, config.optim.ema) if config.optim.ema else None
    shown = model if ema is None else ema.module
    lines, best = _restore(before, optimiser, ema)
    spent = sum(line.seconds for line in lines)
    steps, epochs = batching.steps_per_epoch(len(learn), config.fit.effective_batch_size), history.planned_epochs(config.fit, lines)
    name = f"{run.name} {part.name}"
    with progress.progress_bar(total=epochs * steps, initial=len(lines) * steps, desc=name, unit="step", hidden=watch is not None) as bar:
        while len(lines) < epochs and not history.should_stop_early(lines, config.checkpoint):
            line = _train_epoch(model, optimiser, learn, place, config, len(lines), epochs, stream, bar)
            if not math.isfinite(line.train_loss):
                problem = f"the loss is {line.train_loss} in epoch {line.epoch}"
                raise RunError(part, problem, "lower --lr, or raise --warmup_epochs; --amp off rules out bfloat16")
            last = line.epoch >= history.planned_epochs(config.fit, [*lines, line])  # a time limit may end the run at any epoch
            due = last or line.epoch % config.checkpoint.eval_interval == 0
            if due and len(held):
                began = time.perf_counter()
                line = validate.validate(shown, place, data, folds, held, config, line)
                line = replace(line, seconds=line.seconds + time.perf_counter() - began)
                validated = next((earlier for earlier in reversed(lines) if math.isfinite(earlier.spread)), None)
                validate.check_collapse(line, part, config, validated)
            lines.append(line)
            epochs = history.planned_epochs(config.fit, lines)
            bar.total = epochs * steps
            bar.set_postfix_str(f"loss {line.train_loss:.3f}" + (f" score {line.score:.4f}" if math.isfinite(line.score) else ""))
            log.info(history.describe_epoch(line))
            worth = history.selection_metric(line, config.checkpoint)
            if fold is None or worth > best:
                best = worth if math.isfinite(worth) else best
                _save_best(part, shown, config, line)
            asked = bool(config.checkpoint.save_every) and line.epoch % config.checkpoint.save_every == 0
            if due or asked:
                state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "best": best, "loaded": list(loaded)}
                state |= {} if ema is None else {"ema": ema.state_dict()}
                state |= {"history": [asdict(line) for line in lines]}
            if asked:  # the weights that are validated, and what it takes to go on from them
                kept = {"model": shown.state_dict(), "epoch": line.epoch, "state": state}
                checkpoints.save_checkpoint(part / f"ckpt_epoch{line.epoch}.pt", kept)
            if due:
                checkpoints.save_checkpoint(part / "last.pt", state)
            history.write_metrics(part / "metrics.csv", lines)
            if watch:
                watch(line)
            if draw:
                draw(shown, line.epoch, line.epoch >= epochs or history.should_stop_early(lines, config.checkpoint))
    kept = checkpoints.load_weights(checkpoints.best_checkpoint(part), model, place.device)
    why = "the last" if fold is None or config.checkpoint.selection == "last" else history.BEST_EPOCH_NOTE
    log.info(f"kept epoch {kept['epoch']} ({why}); {sum(line.seconds for line in lines) - spent:.0f} s")

    def embedded() -> OutOfFold | None:
        return None if fold is None else validate.embed_out_of_fold(model, place, data, held, with_parts=config.parts.use_gar)

    out = wise_ft.apply_wise_ft(model, tower, kept, run, fold, folds, embedded, log) if wise_ft.uses_wise_ft(config.text) else embedded()
    if config.checkpoint.save_towers or text_tower.is_fine_tuned(config.text):
        for name, weights in model.split_state_dict().items():
            checkpoints.save_checkpoint(part / name, weights)
    if out is None:
        files.write_json(part / "done.json", {"epoch": kept["epoch"]})
        return None
    score, _ = validate.score_out_of_fold(out, folds)
    oof.save_out_of_fold(part / "oof.npz", out)
    return score


def _train_epoch(
    model: DualEncoder,
    optimiser: torch.optim.Optimizer,
    learn: np.ndarray,
    place: TrainContext,
    config: TrainConfig,
    number: int,
    epochs: int,
    stream: int,
    bar: tqdm,
) -> EpochStats:
    """One pass over the motions in `learn`, the `number`-th of `epochs`. What it draws follows from `stream` and `number` alone."""
    began = time.perf_counter()
    model.train()
    optim.freeze_for_epoch(model, config.text, number)
    seed = stream * 10_000 + number
    torch.manual_seed(seed)  # for layers that draw from torch's own generator
    order, noise = np.random.default_rng([stream, number]), torch.Generator(place.device).manual_seed(seed)
    steps = batching.steps_per_epoch(len(learn), config.fit.effective_batch_size)
    means, rate = objective.LossMeans(place.device), 0.0
    pieces = batching.N_LENGTH_BUCKETS * config.fit.grad_accum
    drawn = batching.iterate_epoch(
        place.motions, place.table, learn, config.fit.effective_batch_size, order, noise, pieces, place.augmentation
    )
    for step, batch in enumerate(drawn):
        rate = lr_scale(number * steps + step, epochs * steps, steps, config.optim)
        means.add(train_step(model, optimiser, batch, place, config, rate))
        bar.update()
    loss = means.mean_total()
    return EpochStats(number + 1, time.perf_counter() - began, config.optim.lr * rate, 1 / model.logit_scale().item(), loss)


def train_step(
    model: DualEncoder, optimiser: torch.optim.Optimizer, batch: batching.Batch, place: TrainContext, config: TrainConfig, rate: float
) -> BatchLoss:
    """One step at `rate` times the groups' learning rates; returns the loss, detached and still on the device."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * rate
    optimiser.zero_grad(set_to_none=True)
    loss = grad_cache.backward(model, batch, place, config)
    if config.optim.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.grad_clip)
    optimiser.step()
    return loss


def backbone_of(model: DualEncoder, config: TrainConfig, flag: str) -> Backbone:
    """The backbone of the motion tower. ConfigError of the flag that asks for one where the tower has none."""
    backbone = getattr(model.motion_tower, "backbone", None)
    if backbone is None:
        raise ConfigError(flag, f"{config.motion.motion_tower} has no backbone", "leave the flag out, or take another --motion_tower")
    return backbone


def load_backbone(model: DualEncoder, config: TrainConfig, log: logging.Logger) -> tuple[str, ...]:
    """Loads --backbone_weights, where given, and says what became of them; returns the names of the backbone's loaded weights."""
    if config.motion.weights_file is None:
        return ()
    found = pretrained.load_backbone_weights(backbone_of(model, config, "--backbone_weights"), config.motion)
    print(found.summary)
    log.info(found.summary)
    return found.names


def _restore(before: dict[str, Any] | None, optimiser: torch.optim.Optimizer, ema: AveragedModel | None) -> tuple[list[EpochStats], float]:
    """The history and best value of an unfinished fold, its optimiser and average loaded; nothing where there is no checkpoint."""
    if before is None:
        return [], -math.inf
    if "optimiser" in before:  # else weights alone were gone on from
        optimiser.load_state_dict(before["optimiser"])
        if ema is not None:
            ema.load_state_dict(before["ema"])
    return [history.restore_stats(line) for line in before["history"]], before["best"]


def _save_best(part: Path, model: DualEncoder, config: TrainConfig, line: EpochStats) -> None:
    path = part / f"best_epoch{line.epoch}.pt"
    checkpoints.save_checkpoint(path, {"model": model.state_dict(), "epoch": line.epoch, "score": line.score})
    for older in part.glob("best_epoch*.pt"):
        if older != path:
            older.unlink()


def _open_log(path: Path) -> logging.Logger:
    log = logging.getLogger(f"motret.{path}")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers.clear()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    return log
