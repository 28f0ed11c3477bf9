"""What `train.py --save_attention --run_qualitative` draws while a fold trains: the report's own pictures, at some epochs."""

from motret.config.scripts import ReportConfig
from motret.models.dual_encoder import DualEncoder
from motret.report import attention, qualitative
from motret.runs.history import PlotCallback
from motret.training import validate
from motret.training.context import FoldContext


def make_plot_callback(fold_context: FoldContext) -> PlotCallback | None:
    """Draws after each epoch of a fold what the flags ask for; None where they ask for nothing."""
    run, fold, data, folds = fold_context.run, fold_context.fold, fold_context.data, fold_context.folds
    place, tower = fold_context.context, fold_context.tower
    chosen, part = run.config.snapshots, run.fold_dir(fold)
    seen = folds.train_idx(0) if fold is None else folds.val_idx(fold)
    shows, analyses = chosen.save_attention, chosen.run_qualitative
    if analyses and (fold is None or len(seen) < qualitative.MIN_PAIRS):
        print(f"{part}: no qualitative analysis, since {'nothing' if fold is None else 'too little'} is held out")
        analyses = False
    if not shows and not analyses:
        return None

    def draw(model: DualEncoder, epoch: int, last: bool) -> None:
        if shows and (epoch == 1 or last or epoch % chosen.attn_interval == 0):
            attention.draw_probe(part, epoch, qualitative.model_title(run, fold), model, place.motions, data, seen)
        if analyses and (last or epoch % chosen.qualitative_interval == 0):
            out = validate.embed_out_of_fold(model, place, data, seen)
            parts = (place.motions, lambda captions: place.bank, tower, place.autocast)
            look = qualitative.gather_inputs(run, data, folds, fold, epoch, out, *parts, ReportConfig.pairs)
            qualitative.write_analysis(part / f"qualitative_epoch{epoch}", look)

    return draw
