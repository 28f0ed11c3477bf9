"""The training loop: one fold of one run, from folds and features to a checkpoint and out-of-fold embeddings."""

import contextlib
import copy
import csv
import io
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
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
    files,
    finetune,
    layers,
    metrics,
    objective,
    part_texts,
    published,
    runs,
    text,
    wise,
)
from motret.backbones import Backbone
from motret.batches import Motions
from motret.config import FitSettings, TrainSettings
from motret.dataset import TrainingData
from motret.faults import RunFault, SettingFault
from motret.folds import Folds
from motret.metrics import Score
from motret.model import DualEncoder
from motret.runs import OutOfFold, Run
from motret.skeleton import PARTS
from motret.text import CaptionBank
from motret.workplace import Workplace

COLLAPSED = 0.01
"""A spread below this (a mean pairwise cosine above 0.99) is a collapse."""


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv; losses and scores are NaN where nothing was held out or no validation was due."""

    epoch: int
    seconds: float
    lr: float
    tau: float
    train_loss: float
    val_loss: float = math.nan
    score: float = math.nan
    error: float = math.nan
    r1: float = math.nan
    r5: float = math.nan
    r10: float = math.nan
    spread: float = math.nan
    text_spread: float = math.nan


Watch = Callable[[Epoch], None]
"""Is told of each epoch as it ends, in place of a bar; what it raises ends the training."""


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


Draw = Callable[[DualEncoder, int, bool], None]
"""Is shown the model after each epoch, with the epoch's number and whether it is the last; may put it into evaluation mode."""


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
    stream = stream_of(settings, fold)
    model = fresh_model(run, data, place.motions, tower, fold, learn)
    draw = _pictures(run, data, folds, place, tower, fold)
    before = runs.load_weights(part / "last.pt", model, place.device) if (part / "last.pt").is_file() else None
    loaded = tuple(before.get("loaded", ())) if before else load_backbone(model, settings, log)
    if settings.fit.freeze_backbone:
        backbones.freeze(backbone_of(model, settings, "--freeze_backbone"), loaded)
    finetune.choose_weights(model, settings.text)
    optimiser = make_optimiser(model, settings, loaded)
    ema = average.start(model, optimiser, settings.fit.ema) if settings.fit.ema else None
    shown = model if ema is None else ema.module
    history, best = _restore(before, optimiser, ema)
    spent = sum(line.seconds for line in history)
    steps, epochs = batches.steps_per_epoch(len(learn), settings.fit.step_size), planned_epochs(settings.fit, history)
    name = f"{run.name} {part.name}"
    hidden = True if watch else None  # None: shown on a terminal
    with tqdm(total=epochs * steps, initial=len(history) * steps, desc=name, unit="step", mininterval=0.5, disable=hidden) as bar:
        while len(history) < epochs and not _stale(history, settings.fit):
            line = _train_epoch(model, optimiser, learn, place, settings, len(history), epochs, stream, bar)
            if not math.isfinite(line.train_loss):
                wrong = f"the loss is {line.train_loss} in epoch {line.epoch}"
                raise RunFault(part, wrong, "lower --lr, or raise --warmup_epochs; --amp off rules out bfloat16")
            last = line.epoch >= planned_epochs(settings.fit, [*history, line])  # a time limit may end the run at any epoch
            due = last or line.epoch % settings.fit.eval_interval == 0
            if due and len(held):
                began = time.perf_counter()
                line = validate(shown, place, data, folds, held, settings, line)
                line = replace(line, seconds=line.seconds + time.perf_counter() - began)
                stop_collapse(line, part, settings)
            history.append(line)
            epochs = planned_epochs(settings.fit, history)
            bar.total = epochs * steps
            bar.set_postfix_str(f"loss {line.train_loss:.3f}" + (f" score {line.score:.4f}" if math.isfinite(line.score) else ""))
            log.info(describe(line))
            worth = _worth(line, settings.fit)
            if fold is None or worth > best:
                best = worth if math.isfinite(worth) else best
                _keep_best(part, shown, settings, line)
            if settings.fit.save_every and line.epoch % settings.fit.save_every == 0:
                runs.save_checkpoint(part / f"ckpt_epoch{line.epoch}.pt", {"model": shown.state_dict(), "epoch": line.epoch})
            if due:
                state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "best": best, "loaded": list(loaded)}
                state |= {} if ema is None else {"ema": ema.state_dict()}
                runs.save_checkpoint(part / "last.pt", state | {"history": [asdict(line) for line in history]})
            _write_metrics(part / "metrics.csv", history)
            if watch:
                watch(line)
            if draw:
                draw(shown, line.epoch, line.epoch >= epochs or _stale(history, settings.fit))
    kept = runs.load_weights(runs.best_checkpoint(part), model, place.device)
    log.info(f"kept epoch {kept['epoch']}; {sum(line.seconds for line in history) - spent:.0f} s")

    def embedded() -> OutOfFold | None:
        return None if fold is None else out_of_fold(model, place, data, held, with_parts=settings.parts.use_gar)

    out = wise.finish(model, tower, kept, run, fold, folds, embedded, log) if wise.applies(settings.text) else embedded()
    if settings.fit.save_halves:
        for name, weights in model.halves().items():
            runs.save_checkpoint(part / name, weights)
    if out is None:
        files.write_json(part / "done.json", {"epoch": kept["epoch"]})
        return None
    score, _ = score_out_of_fold(out, folds)
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
    if settings.motion.backbone_weights is None:
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


def planned_epochs(settings: FitSettings, history: list[Epoch]) -> int:
    """Epochs in all: --epochs, or what still fits into --max_minutes at the pace so far."""
    if settings.max_minutes is None or not history:
        return settings.epochs
    spent = sum(line.seconds for line in history)
    left = settings.max_minutes * 60 - spent
    return min(settings.epochs, len(history) + max(0, int(left / (spent / len(history)))))


@torch.inference_mode()
def embed_motions(model: DualEncoder, motions: Motions, rows: np.ndarray, precision: contextlib.AbstractContextManager) -> np.ndarray:
    """(M, d) unit vectors of motions, computed in batches of like length."""
    model.eval()
    wanted = torch.from_numpy(rows).to(motions.device)
    order = motions.lengths[wanted].argsort(stable=True)
    with precision:
        parts = [model.encode_motions(motions.gather(wanted[piece])) for piece in order.split(batches.EVALUATION_BATCH)]
    encoded = torch.cat(parts)
    out = torch.empty_like(encoded)
    out[order] = encoded
    return out.cpu().numpy()


@torch.inference_mode()
def embed_captions(model: DualEncoder, bank: CaptionBank, rows: Tensor, precision: contextlib.AbstractContextManager) -> np.ndarray:
    """(C, d) unit vectors of captions of a bank."""
    model.eval()
    with precision:
        return torch.cat([model.encode_captions(bank, part) for part in rows.split(1024)]).cpu().numpy()


@torch.inference_mode()
def embed_motion_parts(model: DualEncoder, motions: Motions, rows: np.ndarray, precision: contextlib.AbstractContextManager) -> np.ndarray:
    """(M, 5, d) unit vectors of the parts of motions, the mean over the tower's ways to tell them."""
    model.eval()
    found = []
    with precision:
        for piece in torch.from_numpy(rows).to(motions.device).split(batches.EVALUATION_BATCH):
            _, parts = model.encode_motions_and_parts(motions.gather(piece))
            found.append(nn.functional.normalize(torch.stack(parts).mean(dim=0), dim=-1))
    return torch.cat(found).cpu().numpy()


def embed_caption_parts(
    model: DualEncoder, bank: CaptionBank, captions: Sequence[str], precision: contextlib.AbstractContextManager
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 5, d) unit vectors of what captions say of each part, and whether they do (C, 5). The bank holds these texts."""
    said = [list(part_texts.of_caption(caption).values()) for caption in captions]
    named = np.array([[text is not None for text in own] for own in said])
    distinct = sorted({text for own in said for text in own if text is not None})
    place = {text: number for number, text in enumerate(distinct)}
    vectors = np.zeros((len(captions), len(PARTS), model.size), dtype=np.float32)
    if distinct:
        told = embed_captions(model, bank, bank.rows(distinct).to(model.mean.device), precision)
        vectors[named] = told[[place[text] for own in said for text in own if text is not None]]
    return vectors, named


def out_of_fold(model: DualEncoder, place: Workplace, data: TrainingData, held: np.ndarray, with_parts: bool = False) -> OutOfFold:
    """Embeddings of held-out motions and their captions, and of their parts where they are asked for."""
    captions, owner = place.table.of(torch.from_numpy(held).to(place.device))
    motion = embed_motions(model, place.motions, held, place.autocast())
    text = embed_captions(model, place.bank, captions, place.autocast())
    out = OutOfFold(np.array(data.training.ids)[held], held, motion, text, owner.cpu().numpy())
    if not with_parts:
        return out
    written = [caption for row in held for caption in data.training.captions[row]]
    text_parts, named = embed_caption_parts(model, place.bank, written, place.autocast())
    motion_parts = embed_motion_parts(model, place.motions, held, place.autocast())
    return replace(out, motion_parts=motion_parts, text_parts=text_parts, named=named)


def score_out_of_fold(out: OutOfFold, folds: Folds) -> tuple[Score, np.ndarray]:
    """The local score of one fold, expected competition score within its own gallery; and how many motions beat each caption's own."""
    better, tied = metrics.count_better_in_blocks(out.text, out.motion, out.owner)
    values = metrics.motion_scores(better, tied, out.owner, len(out.motion))
    return metrics.clustered(values, folds.group[out.row]), better


def validate(
    model: DualEncoder, place: Workplace, data: TrainingData, folds: Folds, held: np.ndarray, settings: TrainSettings, line: Epoch
) -> Epoch:
    """Fills in what an epoch's model does on the held-out motions: loss in training-sized batches, score, R@k, spread."""
    out = out_of_fold(model, place, data, held)
    score, better = score_out_of_fold(out, folds)
    found = {f"r{k}": float((better < k).mean()) for k in (1, 5, 10)}
    captions, owner = place.table.of(torch.from_numpy(held).to(place.device))
    motion, caption = torch.from_numpy(out.motion).to(place.device), torch.from_numpy(out.text).to(place.device)
    losses_of = []
    with torch.inference_mode():
        for start in range(0, len(held), settings.fit.step_size):
            mine = (owner >= start) & (owner < start + settings.fit.step_size)
            piece, scale = motion[start : start + settings.fit.step_size], model.logit_scale()
            loss = objective.contrast(piece, caption[mine], scale, captions[mine], owner[mine] - start, place, settings)
            losses_of.append(float(loss))
    filled = {"val_loss": float(np.mean(losses_of)), "score": score.mean, "error": score.error} | found
    return Epoch(**asdict(line) | filled | {"spread": spread(out.motion), "text_spread": spread(out.text)})


def stop_collapse(line: Epoch, part: Path, settings: TrainSettings) -> None:
    """RunFault where the embeddings of motions or of captions have become all alike after the warm-up, with what to change."""
    if line.epoch <= settings.fit.warmup_epochs:
        return
    for what, spreads in (("motions", line.spread), ("captions", line.text_spread)):
        if spreads < COLLAPSED:
            wrong = f"the embeddings of {what} have collapsed in epoch {line.epoch}: their mean cosine is {1 - spreads:.3f}"
            slower = "lower --text_lr_mult or --lr, raise --freeze_text_epochs" if text.fine_tunes(settings.text) else "lower --lr"
            raise RunFault(part, wrong, f"{slower}, or raise --warmup_epochs, --tau or --batch_size")


def spread(embeddings: np.ndarray) -> float:
    """1 - mean pairwise cosine of (M, d) unit vectors: near 0 when they have collapsed onto one."""
    count = len(embeddings)
    if count < 2:
        return math.nan
    return 1 - float((embeddings.sum(axis=0) ** 2).sum() - count) / (count * (count - 1))


def describe(line: Epoch) -> str:
    """An epoch as a line of the log."""
    told = f"epoch {line.epoch}: {line.seconds:.1f} s, lr {line.lr:.2e}, tau {line.tau:.4f}, train loss {line.train_loss:.4f}"
    if not math.isfinite(line.score):
        return told
    told += f", val loss {line.val_loss:.4f}, score {line.score:.4f} +- {line.error:.4f}, R@1 {line.r1:.4f}"
    return f"{told}, spread {line.spread:.3f} text {line.text_spread:.3f}"


def _worth(line: Epoch, settings: FitSettings) -> float:
    """What a checkpoint is chosen by; NaN without a validation."""
    if settings.select == "last":
        return float(line.epoch) if math.isfinite(line.score) else math.nan
    return line.r1 if settings.select == "r1" else line.score


def _stale(history: list[Epoch], settings: FitSettings) -> bool:
    """Whether as many validations as the patience allows have gone by without a better one."""
    by_score = replace(settings, select="score") if settings.select == "last" else settings
    worths = [_worth(line, by_score) for line in history if math.isfinite(line.score)]
    if not settings.early_stop_patience or not worths:
        return False
    return len(worths) - 1 - int(np.argmax(worths)) >= settings.early_stop_patience


def _restore(before: dict[str, Any] | None, optimiser: torch.optim.Optimizer, ema: AveragedModel | None) -> tuple[list[Epoch], float]:
    """The history and best value of an unfinished fold, its optimiser and average loaded; nothing where there is no checkpoint."""
    if before is None:
        return [], -math.inf
    optimiser.load_state_dict(before["optimiser"])
    if ema is not None:
        ema.load_state_dict(before["ema"])
    return [Epoch(**line) for line in before["history"]], before["best"]


def _keep_best(part: Path, model: DualEncoder, settings: TrainSettings, line: Epoch) -> None:
    path = part / f"best_epoch{line.epoch}.pt"
    runs.save_checkpoint(path, {"model": model.state_dict(), "epoch": line.epoch, "score": line.score})
    for older in part.glob("best_epoch*.pt"):
        if older != path:
            older.unlink()


def _write_metrics(path: Path, history: list[Epoch]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(asdict(history[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in history)
    files.write_whole(path, lambda beside: beside.write_text(table.getvalue()))


def _logger(path: Path) -> logging.Logger:
    log = logging.getLogger(f"motret.{path}")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers.clear()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    return log
