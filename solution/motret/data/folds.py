"""Folds: which motions are held out together, and the sidecar that says of which data they are.

SciPy is slow to import, and every script reads folds: it is imported where folds are made.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from motret.data import caption_mirror
from motret.data.captions import normalise
from motret.data.dataset import TrainingData
from motret.data.duplicates import near_duplicates
from motret.errors import FoldError
from motret.formats import gar, split_joints
from motret.formats.challenge import read_ids
from motret.formats.text_files import preview, query_key
from motret.utils import files

COMMON_CAPTION_COUNT = 5
"""A caption of more motions than this says too little to join them."""
LENGTH_BINS = 10
TRAIN_ONLY = -1
"""Fold of the motions that no fold holds out."""
ALGORITHM = "greedy-1"
"""Names how `split` divides motions, in folds.json: the same name, data and seed give the same folds with every library version."""
SplitLists = tuple[Path, Path]
"""Files that list the ids to learn from and those to hold out."""


@dataclass(frozen=True)
class Folds:
    """fold, group: (M,) of each training motion, in the order of the ids; hash: of the assignment; count: number of folds; seed: that
    they were made with, where it is known.

    A split by lists is one fold: 0 are the motions that it holds out, `TRAIN_ONLY` the others.
    """

    fold: np.ndarray
    group: np.ndarray
    hash: str
    count: int
    seed: int | None = None

    def val_idx(self, fold: int) -> np.ndarray:
        """Rows of the motions that fold `fold` holds out."""
        return np.flatnonzero(self.fold == fold)

    def train_idx(self, fold: int) -> np.ndarray:
        """Rows of the motions a model of this fold learns from."""
        return np.flatnonzero(self.fold != fold)


def group_motions(data: TrainingData) -> np.ndarray:
    """Label of each motion (M,): groups.csv where there is one; else motions with the same set of captions, or nearly the same
    motion, share a label, also where that is so in the mirror. A caption met in more than `COMMON_CAPTION_COUNT` motions joins nothing."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    training = data.training
    if training.groups is not None:
        return np.array([training.groups[name] for name in training.ids])
    sets = [frozenset(normalise(caption) for caption in captions) for captions in training.captions]
    counts = Counter(caption for captions in sets for caption in captions)
    first: dict[frozenset[str], int] = {}
    telling = [row for row, s in enumerate(sets) if max(counts[c] for c in s) <= COMMON_CAPTION_COUNT]
    links = [(first.setdefault(sets[row], row), row) for row in telling]
    links += [(first.get(_mirrored(training.captions[row]), row), row) for row in telling]
    links += [(a, b) for mirrored in (False, True) for a, b, _ in near_duplicates(data.store, mirrored=mirrored)]
    ends = np.array(links, dtype=int).reshape(-1, 2)
    size = len(training.ids)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(str)


def _mirrored(captions: Sequence[str]) -> frozenset[str]:
    """The set of normalised captions of the mirrored motion; empty where one of them cannot be mirrored."""
    mirror = caption_mirror.mirror_captions(captions)
    return frozenset(map(normalise, mirror.values())) if len(mirror) == len(set(captions)) else frozenset()


def assign_folds(group: np.ndarray, lengths: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each motion (M,): groups stay whole, and the folds are alike in size and in motion length.

    Groups come largest first, those of one size in an order that follows from the seed; each goes to the fold where it adds least to
    the sum of squared shares of every length bin, and of all motions. In whole numbers, so that no rounding decides.
    """
    if count < 2:
        raise FoldError("--folds", f"{count} folds hold nothing out", "give 2 or more")
    groups = len(np.unique(group))
    if groups < count:
        raise FoldError("--folds", f"{count} folds of {groups} groups", f"give at most {groups}, or look at groups.csv")
    bins = _length_bins(lengths, count)
    weight = 10**12 // np.append(np.bincount(bins), len(bins)) ** 2
    members: dict[str, list[int]] = {}
    for row, name in enumerate(group.tolist()):
        members.setdefault(name, []).append(row)
    order = sorted(enumerate(members.values()), key=lambda one: (-len(one[1]), _random_order_key(seed, one[0])))
    filled = np.zeros((count, len(weight)), dtype=np.int64)  # motions of each bin in each fold, and of all bins
    fold = np.empty(len(group), dtype=int)
    for _, rows in order:
        added = np.append(np.bincount(bins[rows], minlength=len(weight) - 1), len(rows))
        cost = (weight * added * (2 * filled + added)).sum(axis=1)
        fold[rows] = chosen = min(range(count), key=lambda one: (int(cost[one]), int(filled[one, -1]), one))
        filled[chosen] += added
    return fold


def _random_order_key(seed: int, number: int) -> bytes:
    """What groups are put in a random order by; it depends on nothing but its arguments."""
    return hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()


def _length_bins(lengths: np.ndarray, least: int) -> np.ndarray:
    """Length bin of each motion (M,): as many bins, up to `LENGTH_BINS`, as leave none with fewer than `least` motions."""
    ordered = np.sort(lengths)
    for bins in range(LENGTH_BINS, 0, -1):
        edges = np.unique(ordered[[len(ordered) * number // bins for number in range(1, bins)]])
        found = np.unique(np.searchsorted(edges, lengths, side="right"), return_inverse=True)[1]
        if np.bincount(found).min() >= least:
            break
    return found


def choose_split_lists(root: Path, prefer_txt: bool, count_given: bool) -> SplitLists | None:
    """The lists whose split is taken instead of folds, None where folds are made.

    By default those are gar_train.json and gar_val.json, where the data has the layout of the SGAR description and both files, unless a
    number of folds is given; prefer_txt: train.txt and val.txt, else the GAR files, in either layout, and FoldError where there is
    neither.
    """
    texts = (root / "train.txt", root / "val.txt")
    described = (root / "texts" / gar.GAR_FILES[0], root / "texts" / gar.GAR_FILES[1])
    if prefer_txt:
        listing = next((pair for pair in (texts, described) if pair[1].is_file()), None)
        if listing is None:
            fix = "list the ids to hold out there, or leave out --prefer_txt_split"
            raise FoldError(texts[1], "no such file, nor texts/gar_val.json", fix)
        return listing
    both = all(file.is_file() for file in described)
    return described if both and split_joints.has_split_joints(root) and not count_given else None


def split_by_lists(data: TrainingData, listing: SplitLists) -> np.ndarray:
    """Fold of each motion (M,) by the lists of the data folder: 0 for the ids of the second, `TRAIN_ONLY` for all others.

    FoldError where an id stands in both lists, and where the second names an id that the data has not. An id whose files are faulty is
    left out, as everywhere (`--strict`: fatal), unless nothing remains.
    """
    learned, held_out = (_listed_ids(file) for file in listing)
    if both := held_out & learned:
        raise FoldError(listing[1], f"{len(both)} ids are in {listing[0].name} too: {preview(both)}", "keep each in one of the two")
    row_of = {query_key(name): row for row, name in enumerate(data.training.ids)}
    gone = held_out - row_of.keys()
    faulty = {query_key(name) for skip in data.training.skipped for name in (Path(skip.file).stem, Path(skip.file).parent.name)}
    if missing := gone - faulty:
        problem = f"{len(missing)} of its {len(held_out)} ids have no motion with a caption: {preview(missing)}"
        raise FoldError(listing[1], problem, "add what is missing or take them out of the list")
    if len(gone) == len(held_out) or len(held_out) - len(gone) == len(row_of):
        which = "hold out" if len(gone) == len(held_out) else "learn from"
        raise FoldError(listing[1], f"leaves no motion to {which}", "see `python solution/prepare.py`")
    fold = np.full(len(row_of), TRAIN_ONLY)
    fold[[row_of[name] for name in held_out - gone]] = 0
    return fold


def _listed_ids(file: Path) -> set[str]:
    """The ids of a list or a GAR file, in the form in which all ids meet; none where there is no such file."""
    if not file.is_file():
        return set()
    return set(map(query_key, read_ids(file) if file.suffix == ".txt" else gar.read_gar(file, 1).parts))


def make_folds(data: TrainingData, count: int, seed: int, folder: Path, lists: SplitLists | None = None) -> Folds:
    """Splits the data, or takes the split of its lists.

    Writes folds.csv (id, fold, group) and folds.json (hash, data fingerprint, count, seed, algorithm).
    """
    listed = split_by_lists(data, lists) if lists else None  # its faults come before the work on groups
    group = group_motions(data)
    count = count if listed is None else 1
    fold = assign_folds(group, data.store.lengths, count, seed) if listed is None else listed
    made = Folds(fold, group, _hash_folds(data.training.ids, fold, group), count, seed if lists is None else None)
    table = pd.DataFrame({"id": data.training.ids, "fold": fold, "group": group})
    files.atomic_write(folder / "folds.csv", lambda path: table.to_csv(path, index=False))
    how = {"algorithm": ALGORITHM, "seed": seed} if lists is None else {"algorithm": "lists", "lists": [file.name for file in lists]}
    files.write_json(folder / "folds.json", {"hash": made.hash, "data": data.fingerprint, "folds": count} | how)
    return made


def read_sidecar(folder: Path) -> dict[str, Any]:
    """What folds.json says of the folds in `folder`: hash, data, folds, seed, algorithm; empty where it is missing or broken."""
    content = files.read_json(folder / "folds.json")
    return content if isinstance(content, dict) else {}


def folds_hash(folder: Path) -> str | None:
    """The hash of the folds in `folder`, whatever data they are of; None where there are none."""
    return read_sidecar(folder).get("hash")


def read_folds(data: TrainingData, folder: Path) -> Folds:
    """The folds in `folder`; FoldError where they are broken or of other data."""
    listed, about = folder / "folds.csv", read_sidecar(folder)
    again = "run `python solution/make_folds.py` for this data"
    try:
        table = pd.read_csv(listed, dtype={"id": str, "group": str}, keep_default_na=False)
        made_for, hashed, count = about["data"], about["hash"], int(about["folds"])
        rows = table.set_index("id").loc[list(data.training.ids)] if made_for == data.fingerprint else table
        found = Folds(rows["fold"].to_numpy(), rows["group"].to_numpy(dtype=str), hashed, count, about.get("seed"))
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise FoldError(folder, f"no usable folds ({type(broken).__name__})", again) from broken
    if made_for != data.fingerprint:
        raise FoldError(listed, f"made for other data ({made_for}, this is {data.fingerprint})", f"{again}, or give --folds_dir")
    if len(found.fold) != len(data.training.ids) or _hash_folds(data.training.ids, found.fold, found.group) != hashed:
        raise FoldError(listed, "changed since it was made", again)
    return found


def read_or_make_folds(
    data: TrainingData, folder: Path, count: int, seed: int, lists: SplitLists | None = None, only_lists: bool = False
) -> tuple[Folds, bool]:
    """The folds of this data, made where there are none yet; and whether they were there.

    only_lists: folds that are there must be the split of the lists.
    """
    if (folder / "folds.csv").exists() or (folder / "folds.json").exists():
        found = read_folds(data, folder)
        if only_lists and not np.array_equal(found.fold, split_by_lists(data, lists)):
            again = "run `python solution/make_folds.py --prefer_txt_split`, or give --folds_dir"
            raise FoldError(folder / "folds.csv", "not the split of the data's lists", again)
        return found, True
    return make_folds(data, count, seed, folder, lists), False


def _hash_folds(ids: Sequence[str], fold: np.ndarray, group: np.ndarray) -> str:
    return files.content_hash(sorted(zip(ids, fold.tolist(), group.tolist(), strict=True)))
