"""The tables of `validate.py oof`: runs by local score, differences, notes; slices of one run."""

from collections.abc import Sequence
from dataclasses import dataclass

from motret.data.folds import Folds
from motret.evaluation import epoch_choice, gallery_ranks, local_score, slices
from motret.evaluation.gallery_ranks import LocalScore
from motret.evaluation.slices import ScoreSpread, SliceScore
from motret.runs import history
from motret.runs.run import Run

HEADER = ("run", "folds", "motions", "score", "difference", "R@1", "R@5", "R@10", "MedR")


@dataclass(frozen=True)
class ScoredRun:
    """A run and its local score."""

    run: Run
    local: LocalScore


def score_runs(runs: Sequence[Run], folds: Folds) -> list[ScoredRun]:
    """The runs with their local scores, best first."""
    scored = [ScoredRun(run, local_score.out_of_fold_score([run], folds)) for run in runs]
    return sorted(scored, key=lambda entry: -entry.local.score.mean)


def run_table_lines(
    scored: Sequence[ScoredRun], folds: Folds, against: Run | None = None, verbose: bool = False
) -> list[str]:
    """The table of runs in their order, and notes under it; verbose: also each fold of each run.

    against: the run that differences are taken to, by default the first.
    """
    base = against or scored[0].run
    cells = [list(HEADER), *(_table_row(entry, base, folds) for entry in scored)]
    difference = HEADER.index("difference")
    has_differences = any(row[difference] for row in cells[1:])
    if not has_differences:
        cells = [row[:difference] + row[difference + 1 :] for row in cells]
    lines = [*align_columns(cells), *_notes(scored, base if has_differences else None)]
    if verbose:
        lines += [line for entry in scored for line in _run_details(entry)]
    return lines


def slice_table_lines(
    name: str, scores: Sequence[SliceScore], spread: ScoreSpread | None
) -> list[str]:
    """The table of a run's slices, a note under it, and the spread between blocks of motions."""
    cells = [list(slices.HEADER), *(score.cells() for score in scores)]
    note = (
        "to the rest: the slice's score less that of all other captions; each caption is ranked "
        "in its whole fold"
    )
    lines = [f"{name} by what captions are like:", *align_columns(cells), note]
    return [*lines, spread.line()] if spread else lines


def align_columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def best_epoch_note(runs: Sequence[Run]) -> str | None:
    """A note on the runs whose epochs were chosen on the folds that score them, or None."""
    names = [run.name for run in runs if run.config.checkpoint.selection != "last"]
    return f"epoch {history.BEST_EPOCH_NOTE}: {', '.join(names)}" if names else None


def _table_row(entry: ScoredRun, base: Run, folds: Folds) -> list[str]:
    local, table = entry.local, entry.local.retrieval["text_to_motion"]
    recalls = [f"{table[name]:.3f}" for name in HEADER[5:8]]
    is_complete = len(local.by_fold) == folds.count
    return [
        entry.run.name,
        f"all {folds.count}" if is_complete else ",".join(map(str, local.by_fold)),
        str(local.score.motions),
        str(local.score),
        _paired_difference(entry.run, base, folds),
        *recalls,
        f"{table['MedR']:.4g}",
    ]


def _paired_difference(run: Run, base: Run, folds: Folds) -> str:
    """To the base, paired by motion over common folds; empty for the base itself."""
    if (run.folder, run.part_weight) == (base.folder, base.part_weight):
        return ""
    if not set(run.finished_folds()) & set(base.finished_folds()):
        return "no fold in common"
    difference = local_score.paired_difference(run, base, folds)
    return f"{difference.mean:+.4f} +- {difference.error:.4f}"


def _notes(scored: Sequence[ScoredRun], base: Run | None) -> list[str]:
    """base: the run that differences are taken to, None where there are none."""
    pools = gallery_ranks.pool_sizes([entry.local for entry in scored])
    notes = [
        f"score: expected weighted recall in pools of {pools} +- its standard error; "
        "R@k, MedR: text to motion in the whole fold"
    ]
    if base is not None:
        notes.append(
            f"difference: to {base.name}, motion by motion on the folds that both have finished, "
            "+- its standard error"
        )
    weights = [
        f"{entry.run.name} {entry.run.part_weight:g}" for entry in scored if entry.run.part_weight
    ]
    notes += [f"part weight: {', '.join(weights)}"] if weights else []
    tuned = {
        entry.run.name: source
        for entry in scored
        for source in entry.run.sources.values()
        if source.startswith("tuned on")
    }
    notes += [
        f"{source}, which flatters the score on the first a little: {name}"
        for name, source in tuned.items()
    ]
    best_epoch = best_epoch_note([entry.run for entry in scored])
    return [*notes, best_epoch] if best_epoch else notes


def _run_details(entry: ScoredRun) -> list[str]:
    """Of one run: each fold, recalls in both directions, and the gain of choosing the epoch."""
    lines = [f"{entry.run.name}:"]
    for fold, score in entry.local.by_fold.items():
        lines.append(f"  fold {fold}: {score} ({score.motions} motions in {score.groups} groups)")
    for way, table in entry.local.retrieval.items():
        values = ", ".join(f"{name} {value:.4g}" for name, value in table.items())
        lines.append(f"  {way.replace('_', ' ')}, whole fold: {values}")
    choice = epoch_choice.epoch_choice_of_run(entry.run)
    return [*lines, f"  {choice.summary()}"] if choice else lines
