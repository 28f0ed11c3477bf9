"""The training loop: one fold of one run, from folds and features to a checkpoint and out-of-fold embeddings."""

import logging
import math
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from motret import (
    accumulation,
    average,
    backbones,
    batches,
    builder,
    embedding,
    files,
    finetune,
    history,
    progress,
    published,
    runs,
    text,
    validation,
    wise,
)
from motret.backbones import Backbone
from motret.config import FitSettings, TrainSettings
from motret.dataset import TrainingData
from motret.faults import RunFault, SettingFault
from motret.folds import Folds
from motret.history import Draw, Epoch, Watch
from motret.metrics import Score
from motret.model import DualEncoder
from motret.runs import OutOfFold, Run
from motret.workplace import Workplace


def fit(
    run: Run,
    data: TrainingData,
    folds: Folds,
    place: Workplace,
    tower: text.ClipTower | text.HfTower,
    fold: int | None,
    watch: Watch | None = None,
) -> Score | None:
    """Trains one fold (None: on all motions) from its last checkpoint on, to `oof.npz` or `done.json`.

    Returns the held-out score of the checkpoint that is kept. Shows a bar, or tells `watch`.
    """
    run.part(fold).mkdir(parents=True, exist_ok=True)
    log = _logger(run.part(fold) / "train_log.txt")
    try:
        return _fit(run, data, folds, place, tower, fold, watch, log)
    finally:
        for handler in log.handlers:
            handler.close()


def _fit(
    run: Run,
    data: TrainingData,
    folds: Folds,
    place: Workplace,
    tower: text.ClipTower | text.HfTower,
    fold: int | None,
    watch: Watch | None,
    log: logging.Logger,
) -> Score | None:
    settings, part = run.settings, run.part(fold)
    learn = np.arange(len(data.training.ids)) if fold is None else folds.training(fold)
    held = np.array([], dtype=int) if fold is None else folds.held_out(fold)
    if len(learn) < 2:
        raise RunFault(run.folder, f"fold {fold} leaves {len(learn)} motions to learn from", "use fewer folds or more data")
    if wise.applies(settings.text):
        wise.shares(run, fold, folds)  # its faults come before the work
    stream = builder.stream_of(settings, fold)
    model = builder.fresh_model(run, data, place.motions, tower, fold, learn)
    draw = _pictures(run, data, folds, place, tower, fold)
    before = runs.load_weights(part / "last.pt", model, place.device) if (part / "last.pt").is_file() else None
    loaded = tuple(before.get("loaded", ())) if before else load_backbone(model, settings, log)
    if settings.fit.freeze_backbone:
        backbones.freeze(backbone_of(model, settings, "--freeze_backbone"), loaded)
    finetune.choose_weights(model, settings.text)
    optimiser = make_optimiser(model, settings, loaded)
    ema = average.start(model, optimiser, settings.fit.ema) if settings.fit.ema else None
    shown = model if ema is None else ema.module
    lines, best = _restore(before, optimiser, ema)
    spent = sum(line.seconds for line in lines)
    steps, epochs = batches.steps_per_epoch(len(learn), settings.fit.step_size), history.planned_epochs(settings.fit, lines)
    name = f"{run.name} {part.name}"
    with progress.bar(total=epochs * steps, initial=len(lines) * steps, desc=name, unit="step", hidden=watch is not None) as bar:
        while len(lines) < epochs and not history.stale(lines, settings.fit):
            line = _train_epoch(model, optimiser, learn, place, settings, len(lines), epochs, stream, bar)
            if not math.isfinite(line.train_loss):
                wrong = f"the loss is {line.train_loss} in epoch {line.epoch}"
                raise RunFault(part, wrong, "lower --lr, or raise --warmup_epochs; --amp off rules out bfloat16")
            last = line.epoch >= history.planned_epochs(settings.fit, [*lines, line])  # a time limit may end the run at any epoch
            due = last or line.epoch % settings.fit.eval_interval == 0
            if due and len(held):
                began = time.perf_counter()
                line = validation.validate(shown, place, data, folds, held, settings, line)
                line = replace(line, seconds=line.seconds + time.perf_counter() - began)
                validated = next((earlier for earlier in reversed(lines) if math.isfinite(earlier.spread)), None)
                validation.stop_collapse(line, part, settings, validated)
            lines.append(line)
            epochs = history.planned_epochs(settings.fit, lines)
            bar.total = epochs * steps
            bar.set_postfix_str(f"loss {line.train_loss:.3f}" + (f" score {line.score:.4f}" if math.isfinite(line.score) else ""))
            log.info(history.describe(line))
            worth = history.worth(line, settings.fit)
            if fold is None or worth > best:
                best = worth if math.isfinite(worth) else best
                _keep_best(part, shown, settings, line)
            asked = bool(settings.fit.save_every) and line.epoch % settings.fit.save_every == 0
            if due or asked:
                state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "best": best, "loaded": list(loaded)}
                state |= {} if ema is None else {"ema": ema.state_dict()}
                state |= {"history": [asdict(line) for line in lines]}
            if asked:  # the weights that are validated, and what it takes to go on from them
                kept = {"model": shown.state_dict(), "epoch": line.epoch, "state": state}
                runs.save_checkpoint(part / f"ckpt_epoch{line.epoch}.pt", kept)
            if due:
                runs.save_checkpoint(part / "last.pt", state)
            history.write(part / "metrics.csv", lines)
            if watch:
                watch(line)
            if draw:
                draw(shown, line.epoch, line.epoch >= epochs or history.stale(lines, settings.fit))
    kept = runs.load_weights(runs.best_checkpoint(part), model, place.device)
    why = "the last" if fold is None or settings.fit.chosen_by == "last" else history.CHOSEN_THERE
    log.info(f"kept epoch {kept['epoch']} ({why}); {sum(line.seconds for line in lines) - spent:.0f} s")

    def embedded() -> OutOfFold | None:
        return None if fold is None else embedding.out_of_fold(model, place, data, held, with_parts=settings.parts.use_gar)

    out = wise.finish(model, tower, kept, run, fold, folds, embedded, log) if wise.applies(settings.text) else embedded()
    if settings.fit.save_halves or text.fine_tunes(settings.text):
        for name, weights in model.halves().items():
            runs.save_checkpoint(part / name, weights)
    if out is None:
        files.write_json(part / "done.json", {"epoch": kept["epoch"]})
        return None
    score, _ = validation.score_out_of_fold(out, folds)
    runs.save_out_of_fold(part / "oof.npz", out)
    return score


def _pictures(
    run: Run, data: TrainingData, folds: Folds, place: Workplace, tower: text.ClipTower | text.HfTower, fold: int | None
) -> Draw | None:
    """What the flags ask to be drawn after epochs of a fold, if anything. The time that it takes counts for no time limit."""
    if not run.settings.snapshots.save_attention and not run.settings.snapshots.run_qualitative:
        return None
    from motret import snapshots  # pictures are slow to import, and this module is what they draw with

    return snapshots.drawer(run, data, folds, place, tower, fold)


def _train_epoch(
    model: DualEncoder,
    optimiser: torch.optim.Optimizer,
    learn: np.ndarray,
    place: Workplace,
    settings: TrainSettings,
    number: int,
    epochs: int,
    stream: int,
    bar: tqdm,
) -> Epoch:
    """One pass over the motions in `learn`, the `number`-th of `epochs`. What it draws follows from `stream` and `number` alone."""
    began = time.perf_counter()
    model.train()
    finetune.hold(model, settings.text, number)
    seed = stream * 10_000 + number
    torch.manual_seed(seed)  # for layers that draw from torch's own generator
    order, noise = np.random.default_rng([stream, number]), torch.Generator(place.device).manual_seed(seed)
    steps = batches.steps_per_epoch(len(learn), settings.fit.step_size)
    total, rate = torch.zeros((), device=place.device), 0.0
    pieces = batches.PIECES * settings.fit.grad_accum
    drawn = batches.epoch(place.motions, place.table, learn, settings.fit.step_size, order, noise, pieces, place.augmentation)
    for step, batch in enumerate(drawn):
        rate = learning_rate(number * steps + step, epochs * steps, steps, settings.fit)
        total += train_step(model, optimiser, batch, place, settings, rate)
        bar.update()
    loss = float(total) / steps
    return Epoch(number + 1, time.perf_counter() - began, settings.fit.lr * rate, 1 / model.logit_scale().item(), loss)


def train_step(
    model: DualEncoder, optimiser: torch.optim.Optimizer, batch: batches.Batch, place: Workplace, settings: TrainSettings, rate: float
) -> Tensor:
    """One step at `rate` times the groups' learning rates; returns the loss, detached and still on the device."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * rate
    optimiser.zero_grad(set_to_none=True)
    loss = accumulation.backward(model, batch, place, settings)
    if settings.fit.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), settings.fit.grad_clip)
    optimiser.step()
    return loss


def backbone_of(model: DualEncoder, settings: TrainSettings, flag: str) -> Backbone:
    """The backbone of the motion tower. SettingFault of the flag that asks for one where the tower has none."""
    backbone = getattr(model.motion_tower, "backbone", None)
    if backbone is None:
        raise SettingFault(flag, f"{settings.motion.motion_tower} has no backbone", "leave the flag out, or take another --motion_tower")
    return backbone


def load_backbone(model: DualEncoder, settings: TrainSettings, log: logging.Logger) -> tuple[str, ...]:
    """Loads --backbone_weights, where given, and says what became of them; returns the names of the backbone's loaded weights."""
    if settings.motion.weights_file is None:
        return ()
    found = published.load(backbone_of(model, settings, "--backbone_weights"), settings.motion)
    print(found.line)
    log.info(found.line)
    return found.names


def make_optimiser(model: DualEncoder, settings: TrainSettings, loaded: Collection[str] = ()) -> torch.optim.Optimizer:
    """AdamW: no decay on vectors and the temperature, own rates for heads and pretrained weights. `highest` is a group's full rate.

    loaded: names of the backbone's weights that came from a file. Weights without gradient are left out.
    """
    share = {f"motion_tower.backbone.{name}": settings.fit.backbone_lr_mult for name in loaded}
    heads = ("motion_head.", "part_head.", "text_head.")
    share |= {name: settings.fit.head_lr_mult for name, _ in model.named_parameters() if name.startswith(heads)}
    if text.fine_tunes(settings.text):
        share |= {f"text_tower.{name}": rate for name, rate in finetune.rates(model.text_tower, settings.text).items()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            rate = settings.fit.lr * share.get(name, 1.0)
            decay = settings.fit.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(weight)
    listed = [{"params": weights, "lr": rate, "highest": rate, "weight_decay": decay} for (rate, decay), weights in groups.items()]
    return torch.optim.AdamW(listed, betas=(0.9, settings.fit.beta2), fused=True)


def learning_rate(step: int, steps: int, per_epoch: int, settings: FitSettings) -> float:
    """Share of the highest rate at a step: linear warm-up, then half a cosine that ends at 0 after the last step.

    By epochs the rate of a step is that of its epoch; the last epoch's is not 0 yet.
    """
    if settings.schedule == "epoch":
        step, steps, per_epoch = step // per_epoch, steps // per_epoch, 1
    warm = min(settings.warmup_epochs * per_epoch, steps / 2)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _restore(before: dict[str, Any] | None, optimiser: torch.optim.Optimizer, ema: AveragedModel | None) -> tuple[list[Epoch], float]:
    """The history and best value of an unfinished fold, its optimiser and average loaded; nothing where there is no checkpoint."""
    if before is None:
        return [], -math.inf
    if "optimiser" in before:  # else weights alone were gone on from
        optimiser.load_state_dict(before["optimiser"])
        if ema is not None:
            ema.load_state_dict(before["ema"])
    return [history.restored(line) for line in before["history"]], before["best"]


def _keep_best(part: Path, model: DualEncoder, settings: TrainSettings, line: Epoch) -> None:
    path = part / f"best_epoch{line.epoch}.pt"
    runs.save_checkpoint(path, {"model": model.state_dict(), "epoch": line.epoch, "score": line.score})
    for older in part.glob("best_epoch*.pt"):
        if older != path:
            older.unlink()


def _logger(path: Path) -> logging.Logger:
    log = logging.getLogger(f"motret.{path}")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers.clear()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    return log
