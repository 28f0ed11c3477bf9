"""Folds: which motions are held out together, and the sidecar that names the data they are of.

SciPy is slow to import, and every script reads folds: it is imported where folds are made.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from motret.data import caption_mirror
from motret.data.captions import normalize
from motret.data.dataset import TrainingData
from motret.data.duplicates import near_duplicates
from motret.errors import FoldError
from motret.formats import gar, split_joints
from motret.formats.challenge import read_ids
from motret.formats.text_files import preview, query_key
from motret.utils import files, reading

COMMON_CAPTION_COUNT = 5
"""A caption of more motions than this says too little to join them."""
LENGTH_BINS = 10
TRAIN_ONLY = -1
"""Fold of the motions that no fold holds out."""
ALGORITHM = "greedy-1"
"""Name of what `assign_folds` does, in folds.json: the same name, data and seed give the same folds
with every library version."""
SplitLists = tuple[Path, Path]
"""Files that list the ids to train on and those to hold out."""


@dataclass(frozen=True)
class Folds:
    """The folds of a data set.

    fold, group: (M,) of each training motion, in the order of the ids; hash: of the assignment;
    count: number of folds; seed: of the split, where it is in the sidecar. A split by lists is one
    fold: 0 are the motions that it holds out, `TRAIN_ONLY` the others.
    """

    fold: np.ndarray
    group: np.ndarray
    hash: str
    count: int
    seed: int | None = None

    def val_idx(self, fold: int) -> np.ndarray:
        """Indices of the motions that a fold holds out."""
        return np.flatnonzero(self.fold == fold)

    def train_idx(self, fold: int) -> np.ndarray:
        """Indices of the motions that a model of this fold trains on."""
        return np.flatnonzero(self.fold != fold)


# ---- groups


def group_motions(data: TrainingData) -> np.ndarray:
    """Group (M,) of each motion: that of groups.csv where there is one.

    Else motions share a group that have the same set of captions or are nearly the same, also in
    the mirror. A caption of more than `COMMON_CAPTION_COUNT` motions joins nothing.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    training = data.training
    if training.groups is not None:
        return np.array([training.groups[name] for name in training.ids])
    links = _caption_links(training.captions)
    for mirrored in (False, True):
        links += [(a, b) for a, b, _ in near_duplicates(data.store, mirrored=mirrored)]
    ends = np.array(links, dtype=int).reshape(-1, 2)
    size = len(training.ids)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(str)


def _caption_links(captions: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """Pairs of motions with the same set of captions, as they are or mirrored."""
    caption_sets = [frozenset(map(normalize, texts)) for texts in captions]
    counts = Counter(caption for texts in caption_sets for caption in texts)
    rare = [
        motion_idx
        for motion_idx, texts in enumerate(caption_sets)
        if max(counts[caption] for caption in texts) <= COMMON_CAPTION_COUNT
    ]
    first: dict[frozenset[str], int] = {}
    links = [(first.setdefault(caption_sets[index], index), index) for index in rare]
    return links + [(first.get(_mirrored_set(captions[index]), index), index) for index in rare]


def _mirrored_set(captions: Sequence[str]) -> frozenset[str]:
    """The set of normalised captions of the mirrored motion; empty where one of them cannot be
    mirrored."""
    mirror = caption_mirror.mirror_captions(captions)
    if len(mirror) < len(set(captions)):
        return frozenset()
    return frozenset(map(normalize, mirror.values()))


# ---- the split


def assign_folds(group: np.ndarray, lengths: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each motion (M,): groups stay whole, and the folds are alike in size and in motion
    length.

    Groups come largest first, those of one size in an order that follows from the seed; each goes
    to the fold where it adds least to the sum of squared fractions of every length bin, and of all
    motions. In whole numbers, so that no rounding decides.
    """
    if count < 2:
        raise FoldError("--folds", f"{count} folds hold nothing out", "give 2 or more")
    n_groups = len(np.unique(group))
    if n_groups < count:
        fix = f"give at most {n_groups}, or look at groups.csv"
        raise FoldError("--folds", f"{count} folds of {n_groups} groups", fix)
    bins = _length_bins(lengths, count)
    weight = 10**12 // np.append(np.bincount(bins), len(bins)) ** 2
    members: dict[str, list[int]] = {}
    for motion_idx, name in enumerate(group.tolist()):
        members.setdefault(name, []).append(motion_idx)
    keys = [
        (-len(motions), _random_key(seed, number))
        for number, motions in enumerate(members.values())
    ]
    groups = [motions for _, motions in sorted(zip(keys, members.values(), strict=True))]
    sizes = np.zeros(
        (count, len(weight)), dtype=np.int64
    )  # motions of each bin in each fold, and of all
    fold = np.empty(len(group), dtype=int)
    for motions in groups:
        added = np.append(np.bincount(bins[motions], minlength=len(weight) - 1), len(motions))
        cost = (weight * added * (2 * sizes + added)).sum(axis=1)
        best = min(zip(cost.tolist(), sizes[:, -1].tolist(), range(count), strict=True))[-1]
        fold[motions] = best
        sizes[best] += added
    return fold


def _random_key(seed: int, number: int) -> bytes:
    """Sort key that puts groups in a random order; it depends on nothing but its arguments."""
    return hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()


def _length_bins(lengths: np.ndarray, min_count: int) -> np.ndarray:
    """Length bin (M,) of each motion: as many bins, up to `LENGTH_BINS`, as leave `min_count`
    motions or more in each."""
    ordered = np.sort(lengths)
    for n_bins in range(LENGTH_BINS, 0, -1):
        quantiles = [len(ordered) * number // n_bins for number in range(1, n_bins)]
        edges = np.unique(ordered[quantiles])
        bins = np.unique(np.searchsorted(edges, lengths, side="right"), return_inverse=True)[1]
        if np.bincount(bins).min() >= min_count:
            break
    return bins


# ---- the split of the data's lists


def choose_split_lists(root: Path, prefer_txt: bool, count_given: bool) -> SplitLists | None:
    """The lists whose split is taken instead of folds, None where folds are made.

    By default those are gar_train.json and gar_val.json, where the data has the layout of the SGAR
    description and both files, unless a number of folds is given. prefer_txt: train.txt and
    val.txt, else the GAR files, in either layout; FoldError where there is neither.
    """
    txt_lists = (root / "train.txt", root / "val.txt")
    gar_lists = (root / "texts" / gar.GAR_FILES[0], root / "texts" / gar.GAR_FILES[1])
    if prefer_txt:
        lists = next((pair for pair in (txt_lists, gar_lists) if reading.is_file(pair[1])), None)
        if lists is None:
            fix = "list the ids to hold out there, or leave out --prefer_txt_split"
            raise FoldError(txt_lists[1], "no such file, nor texts/gar_val.json", fix)
        return lists
    has_both = all(reading.is_file(file) for file in gar_lists)
    if has_both and split_joints.has_split_joints(root) and not count_given:
        return gar_lists
    return None


def split_by_lists(data: TrainingData, lists: SplitLists) -> np.ndarray:
    """Fold of each motion (M,) by the lists of the data folder: 0 for the ids of the second,
    `TRAIN_ONLY` for all others.

    FoldError where an id is in both lists, and where the second names an id that the data does not
    have. An id whose files have a problem is left out, as everywhere (`--strict`: an error), unless
    nothing remains.
    """
    train_list, val_list = lists
    train_ids, val_ids = (_listed_ids(file) for file in lists)
    if both := val_ids & train_ids:
        problem = f"{len(both)} ids are in {train_list.name} too: {preview(both)}"
        raise FoldError(val_list, problem, "keep each in one of the two")
    motion_idx = {query_key(name): index for index, name in enumerate(data.training.ids)}
    absent = val_ids - motion_idx.keys()
    skipped = [Path(skipped.file) for skipped in data.training.skipped]
    skipped_ids = {query_key(name) for path in skipped for name in (path.stem, path.parent.name)}
    if missing := absent - skipped_ids:
        count = f"{len(missing)} of its {len(val_ids)} ids"
        problem = f"{count} have no motion with a caption: {preview(missing)}"
        raise FoldError(val_list, problem, "add what is missing or take them out of the list")
    held_out = val_ids - absent
    if not held_out or len(held_out) == len(motion_idx):
        use = "train on" if held_out else "hold out"
        raise FoldError(val_list, f"leaves no motion to {use}", "see `python solution/prepare.py`")
    fold = np.full(len(motion_idx), TRAIN_ONLY)
    fold[[motion_idx[name] for name in held_out]] = 0
    return fold


def _listed_ids(file: Path) -> set[str]:
    """The ids of a list or a GAR file as query keys; none where there is no such file."""
    if not reading.is_file(file):
        return set()
    ids = read_ids(file) if file.suffix == ".txt" else gar.read_gar(file, 1).parts
    return set(map(query_key, ids))


# ---- folds.csv and folds.json


def make_folds(
    data: TrainingData, count: int, seed: int, folder: Path, lists: SplitLists | None = None
) -> Folds:
    """Splits the data, or takes the split of its lists.

    Writes folds.csv (id, fold, group) and folds.json (hash, data fingerprint, count, seed,
    algorithm).
    """
    if lists is not None:
        fold = split_by_lists(data, lists)  # its errors come before the work on groups
        group = group_motions(data)
        count = 1
        origin: dict[str, Any] = {"algorithm": "lists", "lists": [file.name for file in lists]}
    else:
        group = group_motions(data)
        fold = assign_folds(group, data.store.lengths, count, seed)
        origin = {"algorithm": ALGORITHM, "seed": seed}
    folds_hash = _hash_folds(data.training.ids, fold, group)
    table = pd.DataFrame({"id": data.training.ids, "fold": fold, "group": group})
    files.atomic_write(folder / "folds.csv", lambda path: table.to_csv(path, index=False))
    sidecar = {"hash": folds_hash, "data": data.fingerprint, "folds": count}
    files.write_json(folder / "folds.json", sidecar | origin)
    return Folds(fold, group, folds_hash, count, origin.get("seed"))


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The content of folds.json: hash, data, folds, seed, algorithm; empty where it is missing or
    broken."""
    content = files.read_json(folder / "folds.json")
    return content if isinstance(content, dict) else {}


def folds_hash(folder: Path) -> str | None:
    """The hash of the folds in `folder`, whatever data they are of; None where there are none."""
    return read_sidecar(folder).get("hash")


def read_folds(data: TrainingData, folder: Path) -> Folds:
    """The folds in `folder`; FoldError where they are broken or of other data."""
    path, sidecar = folder / "folds.csv", read_sidecar(folder)
    fix = "run `python solution/make_folds.py` for this data"
    ids = list(data.training.ids)
    if not reading.is_file(path, FoldError):
        raise FoldError(folder, "no usable folds (no folds.csv)", fix)
    text = reading.read_text(path, error=FoldError)
    with reading.boundary(folder, "no usable folds", fix, FoldError):
        table = pd.read_csv(
            io.StringIO(text), dtype={"id": str, "group": str}, keep_default_na=False
        )
        fingerprint, expected_hash, count = sidecar["data"], sidecar["hash"], int(sidecar["folds"])
        if fingerprint == data.fingerprint:
            table = table.set_index("id").loc[ids]
        fold, group = table["fold"].to_numpy(), table["group"].to_numpy(dtype=str)
        if not 1 <= count <= len(ids) or fold.dtype.kind not in "iu":
            raise ValueError(f"{count} folds of {len(ids)} motions")
    if fingerprint != data.fingerprint:
        problem = f"made for other data ({fingerprint}, this is {data.fingerprint})"
        raise FoldError(path, problem, f"{fix}, or give --folds_dir")
    if len(fold) != len(ids) or _hash_folds(ids, fold, group) != expected_hash:
        raise FoldError(path, "changed since it was made", fix)
    return Folds(fold, group, expected_hash, count, sidecar.get("seed"))


def read_or_make_folds(
    data: TrainingData,
    folder: Path,
    count: int,
    seed: int,
    lists: SplitLists | None = None,
    only_lists: bool = False,
) -> tuple[Folds, bool]:
    """The folds of this data, made where there are none yet; and whether they were there.

    only_lists: existing folds must be the split of the lists.
    """
    if not any(reading.exists(folder / name) for name in ("folds.csv", "folds.json")):
        return make_folds(data, count, seed, folder, lists), False
    folds = read_folds(data, folder)
    if only_lists and lists and not np.array_equal(folds.fold, split_by_lists(data, lists)):
        fix = "run `python solution/make_folds.py --prefer_txt_split`, or give --folds_dir"
        raise FoldError(folder / "folds.csv", "not the split of the data's lists", fix)
    return folds, True


def _hash_folds(ids: Sequence[str], fold: np.ndarray, group: np.ndarray) -> str:
    return files.content_hash(sorted(zip(ids, fold.tolist(), group.tolist(), strict=True)))
