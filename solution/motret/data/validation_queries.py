"""Validation batches in the test's own layout, drawn from motions that a fold holds out."""

from pathlib import Path

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.errors import ConfigError
from motret.utils import files

MARKER = "val.json"


def make_validation_queries(data: TrainingData, folds: Folds, fold: int, queries: int, candidates: int, seed: int, out: Path) -> bool:
    """Writes `queries` folders of `candidates` held-out motions with one caption, and gt.csv; whole or not at all.

    Candidate sets are disjoint, as in the test, where the fold holds enough motions, else drawn one by one; returns which.
    Motions are links where the disk allows. An older set of batches in `out` is replaced, anything else is left alone.
    """
    if not 0 <= fold < folds.count:
        raise ConfigError("--fold", f"there is no fold {fold}", f"give 0 to {folds.count - 1}")
    held = folds.val_idx(fold)
    if not 1 <= candidates <= len(held):
        raise ConfigError("--candidates", f"{candidates} of {len(held)} held-out motions", f"give 1 to {len(held)}")
    if queries < 1:
        raise ConfigError("--queries", f"is {queries}", "1 or more is needed")
    rng = np.random.default_rng([seed, fold])
    disjoint = queries * candidates <= len(held)
    drawn = rng.permutation(held)[: queries * candidates].reshape(queries, -1) if disjoint else None
    with files.atomic_dir(out, MARKER) as building:
        truth = []
        for query in range(1, queries + 1):
            rows = drawn[query - 1] if drawn is not None else rng.choice(held, candidates, replace=False)
            right = int(rng.integers(candidates))
            folder = building / str(query)
            folder.mkdir()
            captions = data.training.captions[rows[right]]
            (folder / "text.txt").write_text(captions[int(rng.integers(len(captions)))] + "\n", encoding="utf-8")
            for number, row in enumerate(rows, start=1):
                files.link_or_copy(data.training.paths[row], folder / f"motion_{number}.npy")
            truth.append({"query_id": query, "candidate": right + 1})
        files.write_csv(building / "gt.csv", truth)
        about = {"fold": fold, "queries": queries, "candidates": candidates, "seed": seed, "data": data.fingerprint, "folds": folds.hash}
        files.write_json(building / MARKER, about)
    return disjoint
