"""The figures of `train.py --save_attention --run_qualitative`: the report's, at some epochs."""

import logging

from motret.config.scripts import ReportConfig
from motret.models.dual_encoder import DualEncoder
from motret.report import attention_probe, qualitative
from motret.report.qualitative import EmbeddingTools
from motret.runs.history import PlotCallback
from motret.training import validate
from motret.training.context import FoldContext

logger = logging.getLogger(__name__)


def make_plot_callback(fold_context: FoldContext) -> PlotCallback | None:
    """A callback that draws after some epochs of a fold; None where no flag asks for figures."""
    run, fold = fold_context.run, fold_context.fold
    data, folds, context = fold_context.data, fold_context.folds, fold_context.context
    config, fold_dir = run.config.snapshots, run.fold_dir(fold)
    val_idx = folds.train_idx(0) if fold is None else folds.val_idx(fold)
    attention, analysis = config.save_attention, config.run_qualitative
    if analysis and (fold is None or len(val_idx) < qualitative.MIN_PAIRS):
        amount = "no motions" if fold is None else "too few motions"
        logger.info(f"{fold_dir}: no qualitative analysis, since {amount} are held out")
        analysis = False
    if not attention and not analysis:
        return None

    def draw(model: DualEncoder, epoch: int, last: bool) -> None:
        if attention and (epoch == 1 or last or epoch % config.attn_interval == 0):
            title = qualitative.model_title(run, fold)
            attention_probe.draw_probe(
                fold_dir, epoch, title, model, context.motions, data, val_idx
            )
        if analysis and (last or epoch % config.qualitative_interval == 0):
            assert fold is not None
            out = validate.embed_out_of_fold(model, context, data, val_idx)
            tools = EmbeddingTools(
                context.motions,
                fold_context.tower,
                lambda _: context.bank,
                context.autocast,
            )
            inputs = qualitative.gather_inputs(
                run, data, folds, fold, epoch, out, tools, ReportConfig.pairs
            )
            qualitative.write_analysis(fold_dir / f"qualitative_epoch{epoch}", inputs)

    return draw
