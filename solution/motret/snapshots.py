"""What `train.py --save_attention --run_qualitative` draws while a fold trains: the report's own pictures, at some epochs."""

from motret import embedding, looks, probe, qualitative
from motret.config import ReportSettings
from motret.dataset import TrainingData
from motret.folds import Folds
from motret.history import Draw
from motret.model import DualEncoder
from motret.runs import Run
from motret.text import ClipTower, HfTower
from motret.workplace import Workplace


def drawer(run: Run, data: TrainingData, folds: Folds, place: Workplace, tower: ClipTower | HfTower, fold: int | None) -> Draw | None:
    """Draws after each epoch of a fold what the flags ask for; None where they ask for nothing."""
    chosen, part = run.settings.snapshots, run.part(fold)
    seen = folds.training(0) if fold is None else folds.held_out(fold)
    shows, analyses = chosen.save_attention, chosen.run_qualitative
    if analyses and (fold is None or len(seen) < qualitative.FEWEST):
        print(f"{part}: no qualitative analysis, since {'nothing' if fold is None else 'too little'} is held out")
        analyses = False
    if not shows and not analyses:
        return None

    def draw(model: DualEncoder, epoch: int, last: bool) -> None:
        if shows and (epoch == 1 or last or epoch % chosen.attn_interval == 0):
            probe.draw(part, epoch, looks.name_of(run, fold), model, place.motions, data, seen)
        if analyses and (last or epoch % chosen.qualitative_interval == 0):
            out = embedding.out_of_fold(model, place, data, seen)
            parts = (place.motions, lambda captions: place.bank, tower, place.autocast)
            look = looks.look(run, data, folds, fold, epoch, out, *parts, ReportSettings.pairs)
            qualitative.write(part / f"qualitative_epoch{epoch}", look)

    return draw
