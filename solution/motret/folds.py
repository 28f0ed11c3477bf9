"""Folds: which motions are held out together, and the sidecar that says of which data they are.

SciPy and scikit-learn are slow to import, and every script reads folds: they are imported where folds are made.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from motret import files, gar, sides
from motret.captions import normalise
from motret.challenge import query_key, read_ids, some
from motret.dataset import TrainingData
from motret.duplicates import near_duplicates
from motret.faults import FoldFault

COMMON = 5
"""A caption of more motions than this says too little to join them."""
LENGTH_BINS = 10
LEARNED = -1
"""Fold of the motions that no fold holds out."""


@dataclass(frozen=True)
class Folds:
    """fold, group: (M,) of each training motion, in the order of the ids; hash: of the assignment; count: number of folds.

    A split by lists is one fold: 0 are the motions that it holds out, `LEARNED` the others.
    """

    fold: np.ndarray
    group: np.ndarray
    hash: str
    count: int

    def held_out(self, fold: int) -> np.ndarray:
        """Rows of the motions that fold `fold` holds out."""
        return np.flatnonzero(self.fold == fold)

    def training(self, fold: int) -> np.ndarray:
        """Rows of the motions a model of this fold learns from."""
        return np.flatnonzero(self.fold != fold)


def group_motions(data: TrainingData) -> np.ndarray:
    """Label of each motion (M,): groups.csv where there is one; else motions with the same set of captions, or nearly the same
    motion, share a label, also where that is so in the mirror. A caption met in more than `COMMON` motions joins nothing."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    training = data.training
    if training.groups is not None:
        return np.array([training.groups[name] for name in training.ids])
    sets = [frozenset(normalise(caption) for caption in captions) for captions in training.captions]
    counts = Counter(caption for captions in sets for caption in captions)
    first: dict[frozenset[str], int] = {}
    telling = [row for row, s in enumerate(sets) if max(counts[c] for c in s) <= COMMON]
    links = [(first.setdefault(sets[row], row), row) for row in telling]
    links += [(first.get(_mirrored(training.captions[row]), row), row) for row in telling]
    links += [(a, b) for mirrored in (False, True) for a, b, _ in near_duplicates(data.store, mirrored=mirrored)]
    ends = np.array(links, dtype=int).reshape(-1, 2)
    size = len(training.ids)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(str)


def _mirrored(captions: Sequence[str]) -> frozenset[str]:
    """The set of normalised captions of the mirrored motion; empty where one of them cannot be mirrored."""
    mirror = sides.mirrors(captions)
    return frozenset(map(normalise, mirror.values())) if len(mirror) == len(set(captions)) else frozenset()


def split(group: np.ndarray, lengths: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each motion (M,): groups stay whole, and the folds are alike in motion length."""
    if count < 2:
        raise FoldFault("--folds", f"{count} folds hold nothing out", "give 2 or more")
    groups = len(np.unique(group))
    if groups < count:
        raise FoldFault("--folds", f"{count} folds of {groups} groups", f"give at most {groups}, or look at groups.csv")
    from sklearn.model_selection import StratifiedGroupKFold

    strata = _length_bins(lengths, count)
    splitter = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    fold = np.empty(len(group), dtype=int)
    for number, (_, held_out) in enumerate(splitter.split(strata, strata, group)):
        fold[held_out] = number
    return fold


def _length_bins(lengths: np.ndarray, least: int) -> np.ndarray:
    """Length bin of each motion (M,): as many bins, up to `LENGTH_BINS`, as leave none with fewer than `least` motions."""
    for bins in range(LENGTH_BINS, 0, -1):
        edges = np.quantile(lengths, np.linspace(0, 1, bins + 1)[1:-1])
        strata = np.searchsorted(edges, lengths)
        if np.unique(strata, return_counts=True)[1].min() >= least:
            break
    return strata


def listed_split(data: TrainingData) -> np.ndarray:
    """Fold of each motion (M,) by the lists of the data folder: 0 for val.txt, else gar_val.json, `LEARNED` for all others.

    FoldFault where there is no such list, where an id stands in both lists, and where val names an id that the data has not. An id
    whose files are faulty is left out, as everywhere (`--strict`: fatal), unless nothing remains.
    """
    root = data.training.root
    pairs = [(root / "train.txt", root / "val.txt"), tuple(root / "texts" / name for name in gar.FILES)]
    listing = next((pair for pair in pairs if pair[1].is_file()), None)
    if listing is None:
        raise FoldFault(
            pairs[0][1], "no such file, nor texts/gar_val.json", "list the ids to hold out there, or leave out --prefer_txt_split"
        )
    learned, held_out = (_listed_ids(file) for file in listing)
    if both := held_out & learned:
        raise FoldFault(listing[1], f"{len(both)} ids are in {listing[0].name} too: {some(both)}", "keep each in one of the two")
    row_of = {query_key(name): row for row, name in enumerate(data.training.ids)}
    gone = held_out - row_of.keys()
    faulty = {query_key(name) for skip in data.training.skipped for name in (Path(skip.file).stem, Path(skip.file).parent.name)}
    if missing := gone - faulty:
        wrong = f"{len(missing)} of its {len(held_out)} ids have no motion with a caption: {some(missing)}"
        raise FoldFault(listing[1], wrong, "add what is missing or take them out of the list")
    if len(gone) == len(held_out) or len(held_out) - len(gone) == len(row_of):
        which = "hold out" if len(gone) == len(held_out) else "learn from"
        raise FoldFault(listing[1], f"leaves no motion to {which}", "see `python solution/prepare.py`")
    fold = np.full(len(row_of), LEARNED)
    fold[[row_of[name] for name in held_out - gone]] = 0
    return fold


def _listed_ids(file: Path) -> set[str]:
    """The ids of a list or a GAR file, in the form in which all ids meet; none where there is no such file."""
    if not file.is_file():
        return set()
    return set(map(query_key, read_ids(file) if file.suffix == ".txt" else gar.read_gar(file, 1).parts))


def make(data: TrainingData, count: int, seed: int, folder: Path, by_lists: bool = False) -> Folds:
    """Splits the data, or takes the split of its lists (`by_lists`).

    Writes folds.csv (id, fold, group) and folds.json (hash, data fingerprint, count, seed).
    """
    listed = listed_split(data) if by_lists else None  # its faults come before the work on groups
    group = group_motions(data)
    count = count if listed is None else 1
    fold = split(group, data.store.lengths, count, seed) if listed is None else listed
    made = Folds(fold, group, _hash(data.training.ids, fold, group), count)
    table = pd.DataFrame({"id": data.training.ids, "fold": fold, "group": group})
    files.write_whole(folder / "folds.csv", lambda path: table.to_csv(path, index=False))
    files.write_json(folder / "folds.json", {"hash": made.hash, "data": data.fingerprint, "folds": count, "seed": seed})
    return made


def made_of(folder: Path) -> str | None:
    """The hash of the folds in `folder`, whatever data they are of; None where there are none."""
    try:
        return str(json.loads((folder / "folds.json").read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read(data: TrainingData, folder: Path) -> Folds:
    """The folds in `folder`; FoldFault where they are broken or of other data."""
    listed, sidecar = folder / "folds.csv", folder / "folds.json"
    again = "run `python solution/make_folds.py` for this data"
    try:
        about = json.loads(sidecar.read_text(encoding="utf-8"))
        table = pd.read_csv(listed, dtype={"id": str, "group": str}, keep_default_na=False)
        made_for, hashed, count = about["data"], about["hash"], int(about["folds"])
        rows = table.set_index("id").loc[list(data.training.ids)] if made_for == data.fingerprint else table
        found = Folds(rows["fold"].to_numpy(), rows["group"].to_numpy(dtype=str), hashed, count)
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise FoldFault(folder, f"no usable folds ({type(broken).__name__})", again) from broken
    if made_for != data.fingerprint:
        raise FoldFault(listed, f"made for other data ({made_for}, this is {data.fingerprint})", f"{again}, or give --folds_dir")
    if len(found.fold) != len(data.training.ids) or _hash(data.training.ids, found.fold, found.group) != hashed:
        raise FoldFault(listed, "changed since it was made", again)
    return found


def read_or_make(data: TrainingData, folder: Path, count: int, seed: int, by_lists: bool = False) -> tuple[Folds, bool]:
    """The folds of this data, made where there are none yet; and whether they were there."""
    if (folder / "folds.csv").exists() or (folder / "folds.json").exists():
        found = read(data, folder)
        if by_lists and not np.array_equal(found.fold, listed_split(data)):
            again = "run `python solution/make_folds.py --prefer_txt_split`, or give --folds_dir"
            raise FoldFault(folder / "folds.csv", "not the split of the data's lists", again)
        return found, True
    return make(data, count, seed, folder, by_lists), False


def _hash(ids: Sequence[str], fold: np.ndarray, group: np.ndarray) -> str:
    return files.digest(sorted(zip(ids, fold.tolist(), group.tolist(), strict=True)))
