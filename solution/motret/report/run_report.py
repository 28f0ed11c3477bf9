"""The report of finished runs: curves, attention, and the qualitative analysis, into report/ of each run.

runs/<name>/report/index.html                          the error browser, of all finished folds
runs/<name>/report/curves.png                          all finished folds
runs/<name>/report/fold<k>/ or full/                   curves.png, loss_curve.png, epoch<NNN>_probe_attn_*.png
runs/<name>/report/fold<k>/                            qualitative_epoch<N>/, tsne_latent_space.png

The folders of single folds are those of the first finished fold, of the one that is asked for, or of every one.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
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
from motret.formats import submission, submission_log
from motret.formats.queries import read_queries
from motret.models import embed, registry, text_tower
from motret.models.dual_encoder import DualEncoder
from motret.report import attention, browser, page, plots, qualitative
from motret.report.plots import History
from motret.report.pose_codec import PackedMotion
from motret.runs import checkpoints, history, oof
from motret.runs.history import EpochStats
from motret.runs.run import Run, select_runs, with_output_dir
from motret.utils import files
from motret.utils.device import autocast, choose_device, uses_bfloat16


def choose_report_runs(config: ReportConfig, data: TrainingData, folds: Folds) -> list[Run]:
    """The runs to report: those named, else those of the latest submission of this data, else all with a finished fold."""
    named = config.run or latest_submission_members(config.submissions_dir, data, folds)
    return select_runs(named, config.out_dir, data, folds, partial=True, flag="--run")


def latest_submission_members(submissions: Path, data: TrainingData, folds: Folds) -> tuple[str, ...]:
    """Names of the runs in the latest submission (a member made elsewhere is none, and has no settings).

    None where there is no submission, or it is of other data or folds.
    """
    found = latest_submission(submissions, data, folds)
    return tuple(member["run"] for member in found[1]["members"] if "settings" in member) if found else ()


def latest_submission(submissions: Path, data: TrainingData, folds: Folds) -> tuple[Path, dict[str, Any]] | None:
    """The latest submission and what its JSON says; None where there is none, or it is of other data or folds."""
    kept = submission_log.latest_submission(submissions)
    about = files.read_json(kept.with_suffix(".json")) if kept else None
    if not about or (about["data"], about["folds"]) != (data.fingerprint, folds.hash):
        return None
    return kept, about


def write_submission_report(config: ReportConfig, data: TrainingData, folds: Folds) -> Path | None:
    """Writes the error browser of the latest submission, where its similarities are kept, to report/ beside it; returns the page."""
    found, test_dir = latest_submission(config.submissions_dir, data, folds), config.data.data_dir / "test"
    if found is None or not found[0].with_suffix(".npz").is_file() or not test_dir.is_dir():
        return None
    gt = test_dir / "gt.csv"
    truth = submission.read_ground_truth(gt) if gt.is_file() else None
    report = browser.page_of_submission(found[0], read_queries(test_dir), data.store.config, truth)
    path = config.submissions_dir / "report" / "index.html"
    page.write_page(path, report)
    return path


def write_run_report(
    run: Run,
    data: TrainingData,
    folds: Folds,
    config: ReportConfig,
    read: Callable[[Path, FeatureConfig], PackedMotion] = page.read_packed_motion,
) -> Path:
    """Writes the figures and texts of a run and returns their folder. read: reads a motion for the page."""
    parts = drawn_models(run, config)
    if run.config.motion.features != data.store.config.kind:
        data = dataset.load_training(config.data, config.machine.jobs, run.config.motion.features)
    machine = replace(run.config.machine, device=config.machine.device, jobs=config.machine.jobs)
    run = replace(run, config=replace(run.config, data=config.data, machine=machine))
    folder = with_output_dir(run, config.data.work_dir).output_dir / "report"
    device = choose_device(config.machine.device)
    motions, tower = MotionTensors(data.store, run.config.motion, device), registry.make_text_tower(run.config.text)
    kept = dict.fromkeys(run.finished_folds())
    label = "training, with parts" if run.config.parts.use_gar else "training"
    for fold in parts:
        place, name = folder / run.fold_dir(fold).name, qualitative.model_title(run, fold)
        model, epoch = checkpoints.load_model(run, fold, data.store.columns, tower, device)
        rate = lr_groups(run.config, model)
        course = read_history(run.fold_dir(fold) / "metrics.csv", epoch)
        plots.plot_curves(place / "curves.png", name, [course], rate, label)
        plots.plot_loss_curve(place / "loss_curve.png", f"Loss: {name}", course, label)
        _draw_attention(place, run, model, motions, data, folds, fold, epoch, config.attn_layer)
        if fold is not None:
            kept[fold] = epoch
            _write_fold_analysis(place, run, data, folds, fold, epoch, motions, tower, config.pairs)
    if kept:
        histories = [read_history(run.fold_dir(fold) / "metrics.csv", epoch) for fold, epoch in kept.items()]
        name = f"{run.name}, mean of {len(histories)} folds (thin: each)" if len(histories) > 1 else qualitative.model_title(run, *kept)
        plots.plot_curves(folder / "curves.png", name, histories, rate, label)
        page.write_page(folder / "index.html", browser.page_of_runs([run], data, folds), read)
    return folder


def finished_models(run: Run) -> list[int | None]:
    """The finished folds, and the model of all data (None) where it is."""
    return [*run.finished_folds(), *([None] if run.has_full_model() else [])]


def drawn_models(run: Run, config: ReportConfig) -> list[int | None]:
    """The folds that are drawn: the one that is asked for, every finished one, or the first. RunError where there is none."""
    done = finished_models(run)
    if config.fold is not None:
        done = [config.fold] if config.fold in done else []
    if not done:
        problem = "no fold is finished" if config.fold is None else f"fold {config.fold} is not finished"
        raise RunError(run.folder, problem, "train it, with --resume auto, or leave it out")
    return done if config.all_folds else done[:1]


def read_history(path: Path, kept: int | None) -> History:
    """What metrics.csv says; RunError where it cannot be read. kept: as in `History`."""
    lines = history.read_metrics(path)
    names = [item.name for item in fields(EpochStats) if item.name != "loss_terms"]
    columns = {name: np.array([float(getattr(line, name)) for line in lines]) for name in names}
    return History(columns, kept)


def lr_groups(config: TrainConfig, model: DualEncoder) -> dict[str, float]:
    """Groups of weights by their learning rate, as a multiple of the highest."""
    found = {"all weights": 1.0}
    if config.motion.weights_file is not None and not config.optim.freeze_backbone:
        found["loaded backbone"] = config.optim.backbone_lr_mult
    if model.text_tower is not None and not text_tower.trains_from_scratch(config.text):
        found["text tower"] = config.text.text_lr_mult
    return found if len(found) == 1 else {"other weights" if name == "all weights" else name: rate for name, rate in found.items()}


def _draw_attention(
    place: Path,
    run: Run,
    model: DualEncoder,
    motions: MotionTensors,
    data: TrainingData,
    folds: Folds,
    fold: int | None,
    epoch: int,
    layer: int,
) -> None:
    if not attention.token_names(model.motion_tower):
        print(f"{run.fold_dir(fold)}: no picture of attention, since {run.config.motion.motion_tower} is a tower of its own")
        return
    rows = np.arange(len(data.training.ids)) if fold is None else folds.val_idx(fold)
    attention.draw_probe(place, epoch, qualitative.model_title(run, fold), model, motions, data, rows, layer)


def _write_fold_analysis(
    place: Path,
    run: Run,
    data: TrainingData,
    folds: Folds,
    fold: int,
    epoch: int,
    motions: MotionTensors,
    tower: text_tower.TextTower,
    pairs: int,
) -> None:
    out = oof.load_out_of_fold(run, fold)
    if len(out.ids) < qualitative.MIN_PAIRS:
        print(f"{run.fold_dir(fold)}: no qualitative analysis, since it holds out {len(out.ids)} motions")
        return
    frozen, cache = not text_tower.is_trained(run.config.text), run.config.data.work_dir / "text"
    precision = partial(autocast, motions.device, uses_bfloat16(run.config.fit.amp, motions.device))

    def banker(captions: Sequence[str]) -> inputs.CaptionBank:
        return embed.make_caption_bank(captions, tower, frozen, cache, motions.device).to(motions.device)

    look = qualitative.gather_inputs(run, data, folds, fold, epoch, out, motions, banker, tower, precision, pairs)
    points = qualitative.write_analysis(place / f"qualitative_epoch{epoch}", look)
    qualitative.latent_space(place / "tsne_latent_space.png", look, points)
