"""Validation queries in the test's own layout, drawn from motions that a fold holds out."""

from pathlib import Path

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.errors import ConfigError
from motret.utils import files

MARKER = "val.json"


def make_validation_queries(
    data: TrainingData,
    folds: Folds,
    fold: int,
    queries: int,
    candidates: int,
    seed: int,
    out: Path,
) -> bool:
    """Writes `queries` folders of `candidates` held-out motions with one caption, and gt.csv; whole
    or not at all.

    Candidate sets are disjoint, as in the test, where the fold holds enough motions, else drawn one
    by one; returns which. Motions are links where the disk allows. An older set of queries in `out`
    is replaced, anything else is left alone.
    """
    if not 0 <= fold < folds.count:
        raise ConfigError("--fold", f"there is no fold {fold}", f"give 0 to {folds.count - 1}")
    val_idx = folds.val_idx(fold)
    if not 1 <= candidates <= len(val_idx):
        problem = f"{candidates} of {len(val_idx)} held-out motions"
        raise ConfigError("--candidates", problem, f"give 1 to {len(val_idx)}")
    if queries < 1:
        raise ConfigError("--queries", f"is {queries}", "1 or more is needed")
    rng = np.random.default_rng([seed, fold])
    disjoint = queries * candidates <= len(val_idx)
    if disjoint:
        pools = rng.permutation(val_idx)[: queries * candidates].reshape(queries, -1)
    with files.atomic_dir(out, MARKER) as building:
        truth = []
        for query in range(queries):
            pool = pools[query] if disjoint else rng.choice(val_idx, candidates, replace=False)
            truth.append(_write_query(building / str(query + 1), data, pool, rng))
        files.write_csv(building / "gt.csv", truth)
        sidecar = {
            "fold": fold,
            "queries": queries,
            "candidates": candidates,
            "seed": seed,
            "data": data.fingerprint,
            "folds": folds.hash,
        }
        files.write_json(building / MARKER, sidecar)
    return disjoint


def _write_query(
    folder: Path, data: TrainingData, pool: np.ndarray, rng: np.random.Generator
) -> dict[str, object]:
    """Writes one query, a caption of a random motion of the pool; returns its row of gt.csv."""
    correct = int(rng.integers(len(pool)))
    folder.mkdir()
    captions = data.training.captions[pool[correct]]
    caption = captions[int(rng.integers(len(captions)))]
    (folder / "text.txt").write_text(caption + "\n", encoding="utf-8")
    for number, motion_idx in enumerate(pool, start=1):
        files.link_or_copy(data.training.paths[motion_idx], folder / f"motion_{number}.npy")
    return {"query_id": folder.name, "candidate": correct + 1}
