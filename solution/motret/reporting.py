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

from motret import (
    attention,
    browser,
    builder,
    dataset,
    files,
    history,
    looks,
    page,
    plots,
    probe,
    qualitative,
    rank,
    runs,
    submission,
    submission_log,
    text,
    workplace,
)
from motret.batches import Motions
from motret.config import ReportSettings, TrainSettings
from motret.dataset import TrainingData
from motret.faults import RunFault
from motret.features import FeatureSettings
from motret.folds import Folds
from motret.history import Epoch
from motret.model import DualEncoder
from motret.plots import History
from motret.poses import Packed
from motret.queries import read_queries
from motret.runs import Run


def choose(settings: ReportSettings, data: TrainingData, folds: Folds) -> list[Run]:
    """The runs to report: those named, else those of the latest submission of this data, else all with a finished fold."""
    named = settings.run or latest_members(settings.submissions_dir, data, folds)
    return rank.choose(named, settings.out_dir, data, folds, partial=True, flag="--run")


def latest_members(submissions: Path, data: TrainingData, folds: Folds) -> tuple[str, ...]:
    """Names of the runs in the latest submission (a member made elsewhere is none, and has no settings).

    None where there is no submission, or it is of other data or folds.
    """
    found = latest(submissions, data, folds)
    return tuple(member["run"] for member in found[1]["members"] if "settings" in member) if found else ()


def latest(submissions: Path, data: TrainingData, folds: Folds) -> tuple[Path, dict[str, Any]] | None:
    """The latest submission and what its JSON says; None where there is none, or it is of other data or folds."""
    kept = submission_log.latest(submissions)
    about = files.read_json(kept.with_suffix(".json")) if kept else None
    if not about or (about["data"], about["folds"]) != (data.fingerprint, folds.hash):
        return None
    return kept, about


def write_submission(settings: ReportSettings, data: TrainingData, folds: Folds) -> Path | None:
    """Writes the error browser of the latest submission, where its similarities are kept, to report/ beside it; returns the page."""
    found, test_dir = latest(settings.submissions_dir, data, folds), settings.data.data_dir / "test"
    if found is None or not found[0].with_suffix(".npz").is_file() or not test_dir.is_dir():
        return None
    gt = test_dir / "gt.csv"
    truth = submission.read_ground_truth(gt) if gt.is_file() else None
    report = browser.of_submission(found[0], read_queries(test_dir), data.store.settings, truth)
    path = settings.submissions_dir / "report" / "index.html"
    page.write(path, report)
    return path


def write(
    run: Run, data: TrainingData, folds: Folds, settings: ReportSettings, read: Callable[[Path, FeatureSettings], Packed] = page.read
) -> Path:
    """Writes the figures and texts of a run and returns their folder. read: reads a motion for the page."""
    parts = drawn_parts(run, settings)
    if run.settings.motion.features != data.store.settings.kind:
        data = dataset.load_training(settings.data, settings.machine.jobs, run.settings.motion.features)
    machine = replace(run.settings.machine, device=settings.machine.device, jobs=settings.machine.jobs)
    run = replace(run, settings=replace(run.settings, data=settings.data, machine=machine))
    folder = runs.with_output(run, settings.data.work_dir).output_dir / "report"
    device = workplace.choose_device(settings.machine.device)
    motions, tower = Motions(data.store, run.settings.motion, device), text.make_tower(run.settings.text)
    kept = dict.fromkeys(run.finished())
    label = "training, with parts" if run.settings.parts.use_gar else "training"
    for fold in parts:
        place, name = folder / run.part(fold).name, looks.name_of(run, fold)
        model, epoch = builder.open_model(run, fold, data.store.columns, tower, device)
        rate = rates(run.settings, model)
        course = read_history(run.part(fold) / "metrics.csv", epoch)
        plots.curves(place / "curves.png", name, [course], rate, label)
        plots.loss_curve(place / "loss_curve.png", f"Loss: {name}", course, label)
        _attention(place, run, model, motions, data, folds, fold, epoch, settings.attn_layer)
        if fold is not None:
            kept[fold] = epoch
            _analysis(place, run, data, folds, fold, epoch, motions, tower, settings.pairs)
    if kept:
        histories = [read_history(run.part(fold) / "metrics.csv", epoch) for fold, epoch in kept.items()]
        name = f"{run.name}, mean of {len(histories)} folds (thin: each)" if len(histories) > 1 else looks.name_of(run, *kept)
        plots.curves(folder / "curves.png", name, histories, rate, label)
        page.write(folder / "index.html", browser.of_runs([run], data, folds), read)
    return folder


def finished_parts(run: Run) -> list[int | None]:
    """The finished folds, and the model of all data (None) where it is."""
    return [*run.finished(), *([None] if run.full() else [])]


def drawn_parts(run: Run, settings: ReportSettings) -> list[int | None]:
    """The folds that are drawn: the one that is asked for, every finished one, or the first. RunFault where there is none."""
    done = finished_parts(run)
    if settings.fold is not None:
        done = [settings.fold] if settings.fold in done else []
    if not done:
        wrong = "no fold is finished" if settings.fold is None else f"fold {settings.fold} is not finished"
        raise RunFault(run.folder, wrong, "train it, with --resume auto, or leave it out")
    return done if settings.all_folds else done[:1]


def read_history(path: Path, kept: int | None) -> History:
    """What metrics.csv says; RunFault where it cannot be read. kept: as in `History`."""
    lines = history.read(path)
    columns = {item.name: np.array([float(getattr(line, item.name)) for line in lines]) for item in fields(Epoch)}
    return History(columns, kept)


def rates(settings: TrainSettings, model: DualEncoder) -> dict[str, float]:
    """Groups of weights by their learning rate, as a multiple of the highest."""
    found = {"all weights": 1.0}
    if settings.motion.weights_file is not None and not settings.fit.freeze_backbone:
        found["loaded backbone"] = settings.fit.backbone_lr_mult
    if model.text_tower is not None and not text.from_scratch(settings.text):
        found["text tower"] = settings.text.text_lr_mult
    return found if len(found) == 1 else {"other weights" if name == "all weights" else name: rate for name, rate in found.items()}


def _attention(
    place: Path, run: Run, model: DualEncoder, motions: Motions, data: TrainingData, folds: Folds, fold: int | None, epoch: int, layer: int
) -> None:
    if not attention.token_names(model.motion_tower):
        print(f"{run.part(fold)}: no picture of attention, since {run.settings.motion.motion_tower} is a tower of its own")
        return
    rows = np.arange(len(data.training.ids)) if fold is None else folds.held_out(fold)
    probe.draw(place, epoch, looks.name_of(run, fold), model, motions, data, rows, layer)


def _analysis(
    place: Path,
    run: Run,
    data: TrainingData,
    folds: Folds,
    fold: int,
    epoch: int,
    motions: Motions,
    tower: text.ClipTower | text.HfTower,
    pairs: int,
) -> None:
    out = runs.load_out_of_fold(run, fold)
    if len(out.ids) < qualitative.FEWEST:
        print(f"{run.part(fold)}: no qualitative analysis, since it holds out {len(out.ids)} motions")
        return
    frozen, cache = not text.trains(run.settings.text), run.settings.data.work_dir / "text"
    precision = partial(workplace.autocast, motions.device, workplace.uses_bfloat16(run.settings, motions.device))

    def banker(captions: Sequence[str]) -> text.CaptionBank:
        return text.make_bank(captions, tower, frozen, cache, motions.device).to(motions.device)

    look = looks.look(run, data, folds, fold, epoch, out, motions, banker, tower, precision, pairs)
    points = qualitative.write(place / f"qualitative_epoch{epoch}", look)
    qualitative.latent_space(place / "tsne_latent_space.png", look, points)
