"""The report of finished runs: curves, attention and the qualitative analysis, in report/.

runs/<name>/report/index.html               the error browser of all finished folds
runs/<name>/report/curves.png               curves of all finished folds
runs/<name>/report/slices.png               the local score by what captions are like
runs/<name>/report/fold<k>/ or full/        curves.png, loss_curve.png, epoch<NNN>_probe_attn_*.png
runs/<name>/report/fold<k>/                 qualitative_epoch<N>/, tsne_latent_space.png

The folders of single folds are those of the first finished fold, of the one of --fold, or of all.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from motret.config.scripts import ReportConfig
from motret.config.training import TrainConfig
from motret.data import dataset, inputs
from motret.data.batching import MotionTensors
from motret.data.dataset import TrainingData
from motret.data.features import FeatureConfig
from motret.data.folds import Folds
from motret.errors import RunError
from motret.evaluation import local_score, slices
from motret.formats import submission, submission_log
from motret.formats.challenge import POOL_SIZE
from motret.formats.queries import read_queries
from motret.models import embed, registry, text_tower
from motret.models.dual_encoder import DualEncoder
from motret.report import (
    attention,
    attention_probe,
    browser,
    curve_plots,
    page,
    qualitative,
    slice_plots,
)
from motret.report.curve_plots import History
from motret.report.pose_codec import PackedMotion
from motret.report.qualitative import EmbeddingTools
from motret.runs import checkpoints, history, oof, text_towers
from motret.runs.history import EpochStats
from motret.runs.run import Run, training_command, with_output_dir
from motret.runs.selection import select_runs
from motret.utils import reading
from motret.utils.device import autocast, choose_device, inference_dtype

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportContext:
    """A run, the data it is reported on, and how they are embedded."""

    run: Run
    data: TrainingData
    folds: Folds
    tools: EmbeddingTools
    config: ReportConfig


def choose_report_runs(config: ReportConfig, data: TrainingData, folds: Folds) -> list[Run]:
    """The runs of --run, else of the latest submission, else all with a finished fold."""
    names = config.run or latest_submission_members(config.submissions_dir, data, folds)
    allowed = config.allow_towers
    return select_runs(names, config.out_dir, data, folds, True, "--run", allowed)


def latest_submission_members(
    submissions_dir: Path, data: TrainingData, folds: Folds
) -> tuple[str, ...]:
    """Names of the runs in the latest submission; none where `latest_submission` is None.

    An external member is no run: it has no settings.
    """
    latest = latest_submission(submissions_dir, data, folds)
    if latest is None:
        return ()
    return tuple(member["run"] for member in latest[1].get("members", ()) if "settings" in member)


def latest_submission(
    submissions_dir: Path, data: TrainingData, folds: Folds
) -> tuple[Path, dict[str, Any]] | None:
    """The latest submission and the content of its JSON file.

    None where there is none, or it is of other data or folds.
    """
    path = submission_log.latest_submission(submissions_dir)
    content = submission_log.read_record(path) if path else None
    if (
        not path
        or not content
        or (content.get("data"), content.get("folds"))
        != (
            data.fingerprint,
            folds.hash,
        )
    ):
        return None
    return path, content


def write_submission_report(config: ReportConfig, data: TrainingData, folds: Folds) -> Path | None:
    """Writes the error browser of the latest submission to report/ next to it; returns the page.

    None where there is no submission with saved similarities, or no test folder.
    """
    latest = latest_submission(config.submissions_dir, data, folds)
    test_dir = config.data.data_dir / "test"
    if latest is None or not reading.is_folder(test_dir):
        return None
    if not reading.is_file(latest[0].with_suffix(".npz")):
        return None
    ground_truth = test_dir / "gt.csv"
    truth = submission.read_ground_truth(ground_truth) if reading.is_file(ground_truth) else None
    content = browser.page_of_submission(
        latest[0], read_queries(test_dir, config.data.follow_links), data.store.config, truth
    )
    path = config.submissions_dir / "report" / "index.html"
    reading.check_output(path.parent, config.submissions_dir)
    page.write_page(path, content)
    return path


def write_run_report(
    run: Run,
    data: TrainingData,
    folds: Folds,
    config: ReportConfig,
    read_motion: Callable[[Path, FeatureConfig], PackedMotion] = page.read_packed_motion,
) -> Path:
    """Writes the figures, texts and page of a run; returns their folder.

    read_motion: reads and packs a motion for the page.
    """
    models = reported_models(run, config)
    context = _make_context(run, data, folds, config)
    run, data = context.run, context.data
    output_dir = with_output_dir(run, config.data.work_dir).output_dir
    folder = output_dir / "report"
    for inner in (folder, *(folder / run.fold_dir(fold).name for fold in models)):
        reading.check_output(inner, output_dir, RunError)
    finished = run.finished_folds()
    epochs: dict[int | None, int] = {}
    lr_mults: dict[str, float] = {}
    for fold in models:
        epochs[fold], lr_mults = _report_model(folder / run.fold_dir(fold).name, context, fold)
    if finished:
        histories = [
            read_history(run.fold_dir(fold) / "metrics.csv", epochs.get(fold)) for fold in finished
        ]
        title = qualitative.model_title(run, finished[0])
        if len(finished) > 1:
            title = f"{run.name}, mean of {len(finished)} folds (thin: each fold)"
        train_label, pool = _train_label(run), _pool_size(folds, finished)
        path = folder / "curves.png"
        curve_plots.plot_curves(path, title, histories, lr_mults, train_label, pool)
        _draw_slices(folder / "slices.png", run, data, folds)
        content = browser.page_of_runs([run], data, folds)
        page.write_page(folder / "index.html", content, read_motion)
    return folder


def _draw_slices(path: Path, run: Run, data: TrainingData, folds: Folds) -> None:
    held_out = local_score.held_out_captions([run], folds, data.training.captions)
    distance = slices.distance_to_other_folds(held_out, data.training.captions, folds)
    scores = slices.slice_captions(held_out, distance, data, folds)
    if scores:
        whole = local_score.out_of_fold_score([run], folds).score
        title = f"{run.name}\nlocal score {whole} by what captions are like"
        slice_plots.plot_slices(path, title, scores, whole)


def _make_context(
    run: Run, data: TrainingData, folds: Folds, config: ReportConfig
) -> ReportContext:
    """What a report needs, with the data and the device of the report's settings."""
    if run.config.motion.features != data.store.config.kind:
        features = run.config.motion.features
        data = dataset.load_training(config.data, config.machine.jobs, features)
    machine = replace(run.config.machine, device=config.machine.device, jobs=config.machine.jobs)
    run = replace(run, config=replace(run.config, data=config.data, machine=machine))
    device = choose_device(config.machine.device)
    tower = registry.make_text_tower(text_towers.text_config(run))
    frozen = not text_tower.is_trained(run.config.text)
    cache = config.data.work_dir / "text"

    def make_bank(captions: Sequence[str]) -> inputs.CaptionBank:
        return embed.make_caption_bank(captions, tower, frozen, cache, device).to(device)

    dtype = inference_dtype(run.config.fit.amp, device)
    motions = MotionTensors(data.store, run.config.motion, device)
    tools = EmbeddingTools(motions, tower, make_bank, partial(autocast, device, dtype))
    return ReportContext(run, data, folds, tools, config)


def _report_model(
    folder: Path, context: ReportContext, fold: int | None
) -> tuple[int, dict[str, float]]:
    """Draws one model (None: of all data); returns its epoch and learning-rate groups."""
    run, data, tools = context.run, context.data, context.tools
    title = qualitative.model_title(run, fold)
    model, epoch = checkpoints.load_model(
        run, fold, data.store.columns, tools.tower, tools.motions.device
    )
    lr_mults = lr_groups(run.config, model)
    course = read_history(run.fold_dir(fold) / "metrics.csv", epoch)
    train_label = _train_label(run)
    pool = _pool_size(context.folds, [] if fold is None else [fold])
    path = folder / "curves.png"
    curve_plots.plot_curves(path, title, [course], lr_mults, train_label, pool)
    path = folder / "loss_curve.png"
    curve_plots.plot_loss_curve(path, f"Loss: {title}", course, train_label)
    _draw_attention(folder, context, model, fold, epoch)
    if fold is not None:
        _write_fold_analysis(folder, context, fold, epoch)
    return epoch, lr_mults


def finished_models(run: Run) -> list[int | None]:
    """The finished folds, and the model of all data (None) where it is finished."""
    return [*run.finished_folds(), *([None] if run.has_full_model() else [])]


def reported_models(run: Run, config: ReportConfig) -> list[int | None]:
    """The models to draw: of --fold, of every finished fold, or of the first.

    RunError where there is none.
    """
    models = finished_models(run)
    if config.fold is not None:
        models = [config.fold] if config.fold in models else []
    if not models:
        problem = "no fold is finished"
        if config.fold is not None:
            problem = f"fold {config.fold} is not finished"
        fix = f"train it: {training_command(run.fold_dir(config.fold or 0))}, or leave it out"
        raise RunError(run.folder, problem, fix)
    return models if config.all_folds else models[:1]


def read_history(path: Path, selected_epoch: int | None) -> History:
    """Reads a metrics.csv. RunError where it cannot be read."""
    rows = [_history_row(stats) for stats in history.read_metrics(path)]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    return History(columns, selected_epoch)


def _history_row(stats: EpochStats) -> dict[str, float]:
    """The values of an epoch by column; a loss term has the column loss_<name>."""
    row = asdict(stats)
    terms = row.pop("loss_terms")
    row |= {history.LOSS_PREFIX + term: loss for term, loss in terms.items()}
    return {name: float(value) for name, value in row.items()}


def lr_groups(config: TrainConfig, model: DualEncoder) -> dict[str, float]:
    """Groups of weights and their learning rates, as multiples of the highest."""
    groups = {}
    if config.motion.weights_file is not None and not config.optim.freeze_backbone:
        groups["loaded backbone"] = config.optim.backbone_lr_mult
    if model.text_tower is not None and not text_tower.trains_from_scratch(config.text):
        groups["text tower"] = config.text.text_lr_mult
    return {"other weights" if groups else "all weights": 1.0} | groups


def _train_label(run: Run) -> str:
    """What the training loss of a run is of."""
    return "training, with parts" if run.config.parts.use_gar else "training"


def _pool_size(folds: Folds, finished: Sequence[int]) -> int:
    """Candidates behind the local score: of a pool, or of a fold smaller than that."""
    return min([POOL_SIZE, *(len(folds.val_idx(fold)) for fold in finished)])


def _draw_attention(
    folder: Path, context: ReportContext, model: DualEncoder, fold: int | None, epoch: int
) -> None:
    run, data = context.run, context.data
    if not attention.special_tokens(model.motion_tower):
        tower = run.config.motion.motion_tower
        logger.info(
            f"{run.fold_dir(fold)}: no figure of attention, since {tower} is an external tower"
        )
        return
    motion_idx = np.arange(len(data.training.ids))
    if fold is not None:
        motion_idx = context.folds.val_idx(fold)
    title = qualitative.model_title(run, fold)
    motions, layer = context.tools.motions, context.config.attn_layer
    attention_probe.draw_probe(folder, epoch, title, model, motions, data, motion_idx, layer)


def _write_fold_analysis(folder: Path, context: ReportContext, fold: int, epoch: int) -> None:
    run, data, folds = context.run, context.data, context.folds
    out = oof.load_out_of_fold(run, fold)
    if len(out.ids) < qualitative.MIN_PAIRS:
        reason = f"since it holds out {len(out.ids)} motions"
        logger.info(f"{run.fold_dir(fold)}: no qualitative analysis, {reason}")
        return
    analysis = qualitative.gather_inputs(
        run, data, folds, fold, epoch, out, context.tools, context.config.pairs
    )
    points = qualitative.write_analysis(folder / f"qualitative_epoch{epoch}", analysis)
    qualitative.plot_latent_space(folder / "tsne_latent_space.png", analysis, points)
