"""The training loop: one fold of one run, from data to a checkpoint and out-of-fold embeddings.

`fit` sets up or resumes, then trains, validates and saves epoch by epoch, then finishes: it loads
the selected checkpoint, interpolates the text tower where WiSE-FT asks for it, and writes the
out-of-fold embeddings.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from motret.config import base, training
from motret.config.training import TrainConfig
from motret.data import batching
from motret.data.batching import Batch, EpochRandom
from motret.errors import RunError
from motret.evaluation.metrics import Score
from motret.models import text_tower
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints, history, oof
from motret.runs.history import EpochCallback, EpochStats, PlotCallback
from motret.runs.oof import OutOfFold
from motret.runs.run import fold_key
from motret.training import distributed, grad_cache, optim, validate, wise_ft
from motret.training import state as state_module
from motret.training.context import FoldContext, TrainContext
from motret.training.objective import BatchLoss, LossMeans
from motret.training.state import FoldState
from motret.utils import files, progress, reading, tracking
from motret.utils.tracking import LogEpoch, TrackedFold

PlotFactory = Callable[[FoldContext], PlotCallback | None]
"""Makes the callback that draws pictures while a fold trains; None for no pictures."""
TRIAL_MOTIONS = 8
"""Held-out motions that are embedded before the first epoch."""


def fit(
    fold_context: FoldContext,
    on_epoch_end: EpochCallback | None = None,
    make_plots: PlotFactory | None = None,
) -> Score | None:
    """Trains one fold (None: on all motions) from its last checkpoint on, to `oof.npz` or
    `done.json`.

    on_epoch_end: gets the stats of each epoch, in place of a progress bar; an error that it raises
    ends the training. make_plots: gets the model of each epoch. Returns the held-out score of the
    selected checkpoint.
    """
    check_fold(fold_context)
    if not fold_context.context.ranks.is_first:
        return follow(fold_context)
    config, fold_dir = fold_context.config, fold_context.fold_dir
    reading.check_output(fold_dir, fold_context.run.folder, RunError)
    with _open_log(fold_dir / "train_log.txt") as log:
        state = set_up(fold_context, log)
        if state.history:  # its last epoch may have been stopped between checkpoint and table
            history.write_metrics(fold_dir / "metrics.csv", state.history)
        try_validation(fold_context, state)
        plot = make_plots(fold_context) if make_plots else None
        with (
            _progress_bar(fold_context, state, hidden=on_epoch_end is not None) as bar,
            _open_tracker(fold_context, state) as log_epoch,
        ):
            while not state.is_finished(config):
                stats = run_epoch(fold_context, state, bar.update)
                is_due = is_validation_due(state, stats, config)
                if is_due:
                    stats = validate_epoch(fold_context, state, stats)
                state.history.append(stats)
                log.info(history.describe_epoch(stats))
                log_epoch(history.metrics_row(stats))  # first: what is saved is not logged again
                save_epoch(fold_context, state, is_due)
                fold_context.context.ranks.broadcast(lambda: state.history[-1])
                _show_progress(bar, fold_context, state)
                if on_epoch_end:
                    on_epoch_end(stats)
                if plot:
                    plot(state.eval_model, stats.epoch, state.is_finished(config))
        _restore_best(fold_context, state)
        return fold_context.context.ranks.broadcast(lambda: finish(fold_context, state, log))


def follow(fold_context: FoldContext) -> Score | None:
    """The same in the other processes that share the batches: they embed their share, and learn
    from the first what it measures."""
    state = set_up(fold_context, logging.getLogger("motret.follow"))
    ranks = fold_context.context.ranks
    while not state.is_finished(fold_context.config):
        stats = run_epoch(fold_context, state, lambda: None)
        state.history.append(ranks.broadcast(partial(replace, stats)))
    return ranks.broadcast(lambda: None)


def set_up(fold_context: FoldContext, log: logging.Logger) -> FoldState:
    """The state that training begins with or resumes from, the same in all processes that share
    the batches."""
    ranks = fold_context.context.ranks
    distributed.check_shard(fold_context.config, len(fold_context.train_idx), ranks)
    state = state_module.set_up(fold_context, log)
    distributed.check_model(state.model, ranks)
    ranks.check_state(fold_context.fold_dir, state.model)
    return state


def check_fold(fold_context: FoldContext) -> None:
    """RunError where the fold leaves too few motions, or WiSE-FT has nothing to choose its alpha
    on."""
    run, fold, count = fold_context.run, fold_context.fold, len(fold_context.train_idx)
    if count < 2:
        raise RunError(
            run.folder,
            f"fold {fold} leaves {count} motions to learn from",
            "use fewer folds or more data",
        )
    if wise_ft.uses_wise_ft(run.config.text):
        wise_ft.candidate_alphas(run, fold, fold_context.folds)


def try_validation(fold_context: FoldContext, state: FoldState) -> None:
    """Embeds a few held-out motions before the first epoch, so that an error in what follows an
    epoch does not cost one."""
    val_idx = fold_context.val_idx[:TRIAL_MOTIONS]
    if len(val_idx) and not state.history:
        arguments = fold_context.context, fold_context.data, val_idx
        with_parts = fold_context.config.parts.use_gar
        validate.embed_out_of_fold(state.eval_model, *arguments, with_parts=with_parts)


# ---- an epoch


def run_epoch(
    fold_context: FoldContext, state: FoldState, on_step: Callable[[], object]
) -> EpochStats:
    """One pass over the training motions. Its random choices follow from the fold's seed and the
    epoch alone."""
    start = time.perf_counter()
    config, context, model = fold_context.config, fold_context.context, state.model
    epoch, planned_epochs = len(state.history), state.planned_epochs(config)
    steps = _steps_per_epoch(fold_context)
    model.train()
    optim.freeze_for_epoch(model, config.text, epoch)
    losses, lr_scale = LossMeans(context.device), 0.0
    skipped = torch.zeros((), dtype=torch.long, device=context.device)
    generator = None
    for step, batch in enumerate(_epoch_batches(fold_context, epoch)):
        generator = batch.generator
        lr_scale = optim.lr_scale(epoch * steps + step, planned_epochs * steps, steps, config.optim)
        loss, is_skipped = train_step(state, batch, context, config, lr_scale)
        losses.add(loss)
        skipped += is_skipped
        on_step()
    context.ranks.check_state(fold_context.fold_dir, model, generator)
    train_loss = losses.mean_total()
    if not math.isfinite(train_loss):
        problem = f"the loss is {train_loss} in epoch {epoch + 1}"
        raise RunError(
            fold_context.fold_dir,
            problem,
            "lower --lr, or raise --warmup_epochs; --amp off computes in float32",
        )
    return EpochStats(
        epoch=epoch + 1,
        seconds=time.perf_counter() - start,
        lr=config.optim.lr * lr_scale,
        tau=1 / model.logit_scale().item(),
        train_loss=train_loss,
        skipped_steps=int(skipped),
        loss_terms=losses.mean_terms(),
    )


def train_step(
    state: FoldState, batch: Batch, context: TrainContext, config: TrainConfig, lr_scale: float
) -> tuple[BatchLoss, Tensor]:
    """One step at `lr_scale` times the groups' base learning rates.

    Returns the loss, detached, and whether the step was skipped since a gradient is no number in
    float16: () on the device. Nothing is read back from there.
    """
    optimizer, scaler = state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * lr_scale
    optimizer.zero_grad(set_to_none=True)
    loss = grad_cache.backward(state.model, batch, context, config, scaler)
    is_skipped = torch.zeros((), dtype=torch.bool, device=context.device)
    scaler.unscale_(optimizer)
    if config.optim.grad_clip or scaler.is_enabled():
        max_norm = config.optim.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), max_norm)
        is_skipped = ~norm.isfinite() if scaler.is_enabled() else is_skipped
    scaler.step(optimizer)
    scaler.update()
    return loss, is_skipped


def _steps_per_epoch(fold_context: FoldContext) -> int:
    return batching.steps_per_epoch(
        len(fold_context.train_idx), fold_context.config.fit.effective_batch_size
    )


def _epoch_batches(fold_context: FoldContext, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch; also seeds torch's own generator, which some layers draw from."""
    config, context = fold_context.config, fold_context.context
    seed = fold_context.seed * 10_000 + epoch
    torch.manual_seed(context.ranks.seed_of(seed))
    return batching.iterate_epoch(
        context.motions,
        context.table,
        fold_context.train_idx,
        config.fit.effective_batch_size,
        EpochRandom.seeded(np.random.default_rng([fold_context.seed, epoch]), seed, context.device),
        distributed.n_buckets(config),
        context.augmentation,
        context.ranks.shard(keeps_buckets=config.parts.lambda_mix > 0),
    )


def is_validation_due(state: FoldState, stats: EpochStats, config: TrainConfig) -> bool:
    """Whether the model of this epoch is to be validated and saved: every --eval_interval epochs
    and after the last."""
    is_last = stats.epoch >= history.planned_epochs(config.fit, [*state.history, stats])
    return is_last or stats.epoch % config.checkpoint.eval_interval == 0


def validate_epoch(fold_context: FoldContext, state: FoldState, stats: EpochStats) -> EpochStats:
    """The stats of an epoch with its validation, if motions are held out. RunError where the
    embeddings have collapsed."""
    if not len(fold_context.val_idx):
        return stats
    start = time.perf_counter()
    stats = validate.validate(state.eval_model, fold_context, stats)
    stats = replace(stats, seconds=stats.seconds + time.perf_counter() - start)
    validated = [earlier for earlier in state.history if math.isfinite(earlier.spread)]
    previous = validated[-1] if validated else None
    validate.check_collapse(stats, fold_context.fold_dir, fold_context.config, previous)
    return stats


# ---- files


def save_epoch(fold_context: FoldContext, state: FoldState, is_due: bool) -> None:
    """Writes the checkpoints of the last epoch and metrics.csv."""
    config, fold_dir, stats = (
        fold_context.config.checkpoint,
        fold_context.fold_dir,
        state.history[-1],
    )
    value = history.selection_metric(stats, config)
    if fold_context.fold is None or value > state.best:
        state.best = value if math.isfinite(value) else state.best
        _save_best(fold_dir, state.eval_model, stats)
    is_extra = bool(config.save_every) and stats.epoch % config.save_every == 0
    checkpoint = state.checkpoint() if is_due or is_extra else {}
    if is_extra:  # the weights that are validated, and all that it takes to resume from them
        content = {
            "model": state.eval_model.state_dict(),
            "epoch": stats.epoch,
            "state": checkpoint,
        }
        checkpoints.save_checkpoint(fold_dir / f"ckpt_epoch{stats.epoch}.pt", content)
    if is_due:
        checkpoints.save_checkpoint(fold_dir / "last.pt", checkpoint)
    history.write_metrics(fold_dir / "metrics.csv", state.history)


def _save_best(fold_dir: Path, model: DualEncoder, stats: EpochStats) -> None:
    path = fold_dir / f"best_epoch{stats.epoch}.pt"
    checkpoints.save_checkpoint(
        path, {"model": model.state_dict(), "epoch": stats.epoch, "score": stats.score}
    )
    for older in fold_dir.glob("best_epoch*.pt"):
        if older != path:
            older.unlink()


def _restore_best(fold_context: FoldContext, state: FoldState) -> None:
    """Writes the best checkpoint again where it is gone and was that of the last epoch."""
    fold_dir = fold_context.fold_dir
    is_last = fold_context.fold is None or fold_context.config.checkpoint.selection == "last"
    if is_last and state.history and not any(fold_dir.glob("best_epoch*.pt")):
        _save_best(fold_dir, state.eval_model, state.history[-1])


def finish(fold_context: FoldContext, state: FoldState, log: logging.Logger) -> Score | None:
    """Loads the selected checkpoint and writes what is made of it; returns its held-out score.

    None where nothing is held out.
    """
    config, fold_dir, model = fold_context.config, fold_context.fold_dir, state.model
    path = checkpoints.best_checkpoint(fold_dir)
    checkpoint = checkpoints.load_weights(path, model, fold_context.context.device)
    files.flush_to_disk(path)  # before the fold counts as finished
    is_last = fold_context.fold is None or config.checkpoint.selection == "last"
    seconds = sum(stats.seconds for stats in state.history[state.resumed_epochs :])
    reason = "the last" if is_last else history.BEST_EPOCH_NOTE
    log.info(f"kept epoch {checkpoint['epoch']} ({reason}); {seconds:.0f} s")

    def embed() -> OutOfFold | None:
        if fold_context.fold is None:
            return None
        arguments = fold_context.context, fold_context.data, fold_context.val_idx
        return validate.embed_out_of_fold(model, *arguments, with_parts=config.parts.use_gar)

    uses_wise_ft = wise_ft.uses_wise_ft(config.text)
    out = (
        wise_ft.apply_wise_ft(model, checkpoint, fold_context, embed, log)
        if uses_wise_ft
        else embed()
    )
    if config.checkpoint.save_towers or text_tower.is_fine_tuned(config.text):
        for name, weights in model.split_state_dict().items():
            checkpoints.save_checkpoint(fold_dir / name, weights)
    if out is None:
        files.write_json(fold_dir / "done.json", {"epoch": checkpoint["epoch"]})
        return None
    score, _ = validate.score_out_of_fold(out, fold_context.folds)
    oof.save_out_of_fold(fold_dir / "oof.npz", out)
    return score


# ---- log and progress


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[logging.Logger]:
    """A logger that writes to this file alone."""
    if path.is_symlink():  # never written through: it may lead anywhere
        path.unlink()
    log = logging.getLogger(f"motret.{path}")
    log.setLevel(logging.INFO)
    log.propagate = False
    files.make_dir(path.parent)
    with files.named_write_errors(path):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers = [handler]
    try:
        yield log
    finally:
        with contextlib.suppress(OSError):  # what could not be written is reported already
            handler.close()


class _LogFile(logging.FileHandler):
    """A log file whose lines are written, or else there is an error as of any file."""

    def handleError(self, _record: logging.LogRecord) -> None:  # noqa: N802 # as logging calls it
        with files.named_write_errors(Path(self.baseFilename)):
            raise  # the error that is being handled


def _open_tracker(
    fold_context: FoldContext, state: FoldState
) -> contextlib.AbstractContextManager[LogEpoch]:
    """Gives the function that logs an epoch where --log asks for it."""
    run, fold_dir, kind = fold_context.run, fold_context.fold_dir, fold_context.config.log
    if kind == "none":
        return contextlib.nullcontext(lambda _row: None)
    settings = {
        name: value
        for name, value in base.flatten(run.config).items()
        if name not in training.NON_MODEL_SETTINGS
    }
    fold = TrackedFold(
        folder=fold_dir,
        run=run.name,
        fold=fold_dir.name,
        key=fold_key(run, fold_context.fold),
        settings=settings | {"run": run.name, "fold": fold_dir.name},
        earlier=[history.metrics_row(stats) for stats in state.history],
    )
    return tracking.open_tracker(kind, fold)


def _progress_bar(fold_context: FoldContext, state: FoldState, hidden: bool) -> tqdm:
    """A bar over the steps of all epochs."""
    steps = _steps_per_epoch(fold_context)
    total, done = state.planned_epochs(fold_context.config) * steps, len(state.history) * steps
    name = f"{fold_context.run.name} {fold_context.fold_dir.name}"
    return progress.progress_bar(total=total, initial=done, desc=name, unit="step", hidden=hidden)


def _show_progress(bar: tqdm, fold_context: FoldContext, state: FoldState) -> None:
    """Shows the last epoch on the bar, and the length that a time limit now leaves."""
    stats = state.history[-1]
    bar.total = state.planned_epochs(fold_context.config) * _steps_per_epoch(fold_context)
    score = f" score {stats.score:.4f}" if math.isfinite(stats.score) else ""
    bar.set_postfix_str(f"loss {stats.train_loss:.3f}{score}")
