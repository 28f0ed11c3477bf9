"""Gathers what the qualitative analysis looks at: a fold's embeddings, the words, and the model as it was before training."""

import contextlib
from collections.abc import Callable, Sequence

from motret import builder, embedding, qualitative
from motret.batches import Motions
from motret.dataset import TrainingData
from motret.folds import Folds
from motret.qualitative import Look, Pairs
from motret.runs import OutOfFold, Run
from motret.text import CaptionBank, ClipTower, HfTower

Banker = Callable[[Sequence[str]], CaptionBank]
"""Gives a bank that holds these captions."""
Precision = Callable[[], contextlib.AbstractContextManager]


def name_of(run: Run, fold: int | None) -> str:
    """A fold's model in the title of a picture."""
    return f"{run.name}, {'all data' if fold is None else f'fold {fold}'}"


def look(
    run: Run,
    data: TrainingData,
    folds: Folds,
    fold: int,
    epoch: int,
    out: OutOfFold,
    motions: Motions,
    banker: Banker,
    tower: ClipTower | HfTower,
    precision: Precision,
    most: int,
) -> Look:
    """What the analysis of one fold looks at; out: by the model of this epoch; most: pairs for the t-SNE."""
    seed = run.settings.machine.seed
    chosen = qualitative.choose_pairs(len(out.row), most, seed)
    model = builder.fresh_model(run, data, motions, tower, fold, folds.training(fold))
    told = [data.training.captions[row][0] for row in out.row[chosen]]
    bank = banker(told)
    before = Pairs(
        embedding.embed_motions(model, motions, out.row[chosen], precision()),
        embedding.embed_captions(model, bank, bank.rows(told).to(motions.device), precision()),
    )
    captions = [caption for row in out.row for caption in data.training.captions[row]]
    return Look(name_of(run, fold), epoch, out, captions, chosen, before, seed)
