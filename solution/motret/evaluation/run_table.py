"""The table of `validate.py oof`: runs by their local score, how far each is from the best, and what to mind about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from motret.data.folds import Folds
from motret.evaluation import epoch_choice, local_score
from motret.evaluation.gallery_ranks import LocalScore
from motret.formats import challenge
from motret.runs import history
from motret.runs.run import Run

HEADER = ("run", "folds", "motions", "score", "difference", "R@1", "R@5", "R@10", "MedR")


@dataclass(frozen=True)
class ScoredRun:
    """A run and its local score."""

    run: Run
    local: LocalScore


def run_table_lines(members: Sequence[Run], folds: Folds, against: Run | None = None, verbose: bool = False) -> list[str]:
    """The table, best first, with differences to the best (or to `compare_with_command`), and notes under it. verbose: also each fold of each run."""
    scored = [ScoredRun(run, local_score.out_of_fold_score([run], folds)) for run in members]
    scored.sort(key=lambda one: -one.local.score.mean)
    base = against or scored[0].run
    rows = [_table_row(one, base, folds) for one in scored]
    shown = [place for place in range(len(HEADER)) if place != HEADER.index("difference") or any(row[place] for row in rows)]
    said = align_columns([[line[place] for place in shown] for line in [HEADER, *rows]])
    notes = _notes(scored, base if len(shown) == len(HEADER) else None)
    return [*said, *notes, *(line for one in scored for line in _run_details(one))] if verbose else [*said, *notes]


def align_columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def best_epoch_note(members: Sequence[Run]) -> str | None:
    """A note that names the runs whose epochs were chosen on the folds that score them; None where there is none."""
    names = [run.name for run in members if run.config.checkpoint.selection != "last"]
    return f"epoch {history.BEST_EPOCH_NOTE}: {', '.join(names)}" if names else None


def _table_row(one: ScoredRun, base: Run, folds: Folds) -> list[str]:
    local, table = one.local, one.local.retrieval["text_to_motion"]
    recalls = [f"{table[name]:.3f}" for name in HEADER[5:8]]
    return [
        one.run.name,
        ",".join(map(str, local.by_fold)) if len(local.by_fold) < folds.count else f"all {folds.count}",
        str(local.score.motions),
        str(local.score),
        _paired_difference(one.run, base, folds),
        *recalls,
        f"{table['MedR']:.4g}",
    ]


def _paired_difference(run: Run, base: Run, folds: Folds) -> str:
    """To the base, paired by motion over the folds that both have finished."""
    if (run.folder, run.part_weight) == (base.folder, base.part_weight):
        return ""
    if not set(run.finished_folds()) & set(base.finished_folds()):
        return "no fold in common"
    found = local_score.paired_difference(run, base, folds)
    return f"{found.mean:+.4f} +- {found.error:.4f}"


def _notes(scored: Sequence[ScoredRun], base: Run | None) -> list[str]:
    pools = sorted({min(challenge.POOL_SIZE, score.motions) for one in scored for score in one.local.by_fold.values()})
    pool = " to ".join(map(str, dict.fromkeys((pools[0], pools[-1]))))  # a fold smaller than the pool is its own pool
    notes = [f"score: expected weighted recall in pools of {pool}, with its standard error; R@k, MedR: text to motion in the whole fold"]
    if base is not None:
        notes.append(f"difference: to {base.name}, motion by motion on the folds that both have finished, with its standard error")
    weights = [f"{one.run.name} {one.run.part_weight:g}" for one in scored if one.run.part_weight]
    notes += [f"part weight: {', '.join(weights)}"] if weights else []
    tuned = {one.run.name: source for one in scored for source in one.run.sources.values() if source.startswith("tuned on")}
    notes += [f"{source}, so that the score on the first is a little flattered: {name}" for name, source in tuned.items()]
    chosen = best_epoch_note([one.run for one in scored])
    return [*notes, chosen] if chosen else notes


def _run_details(one: ScoredRun) -> list[str]:
    """Of one run: each fold, recalls in both directions, and what the choice of the epoch is worth."""
    said = [f"{one.run.name}:"]
    said += [f"  fold {fold}: {score} ({score.motions} motions in {score.groups} groups)" for fold, score in one.local.by_fold.items()]
    for way, table in one.local.retrieval.items():
        said.append(f"  {way.replace('_', ' ')}, whole fold: " + ", ".join(f"{name} {value:.4g}" for name, value in table.items()))
    choice = epoch_choice.epoch_choice_of_run(one.run)
    return [*said, f"  {choice.summary()}"] if choice else said
