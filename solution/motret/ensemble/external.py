"""Members made elsewhere: a ranking in the form of a submission, or similarities in the form we keep beside each submission.

FILE.csv    a submission with any number of candidates a query: its ranks are what counts
FILE.npz    query (N,) text, candidate (N,) and similarity (N,) numbers, one row for each candidate of each query

For a weight by score an .npz also holds, for each fold k, `oof<k>`: (captions, motions) similarities of the motions that fold k holds
out, by a model that has not seen them, motions in the order of folds.csv and their captions in the order of their files; and `folds`,
the hash in folds.json.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.errors import DataError
from motret.formats import submission
from motret.formats.queries import Query
from motret.formats.text_files import query_key
from motret.utils import files

OOF_KEY = re.compile(r"oof(\d+)")


@dataclass(frozen=True)
class ExternalPredictions:
    """similarities: of each query to its candidates, one (n,) array a query; out_of_fold: fold -> (captions, motions), where told."""

    name: str
    similarities: tuple[np.ndarray, ...]
    out_of_fold: Mapping[int, np.ndarray] = field(default_factory=dict)


def read_external(path: Path, queries: Sequence[Query], data: TrainingData, folds: Folds) -> ExternalPredictions:
    """A foreign member for these queries; DataError where the file does not speak of each candidate of each query."""
    if path.suffix == ".csv":
        return ExternalPredictions(path.name, _from_ranks(path, queries))
    if path.suffix != ".npz":
        raise DataError(path, "is neither .csv nor .npz", "give ranks like a submission, or similarities as kept beside one")
    arrays = _read_arrays(path)
    return ExternalPredictions(path.name, _from_similarities(path, arrays, queries), _read_out_of_fold(path, arrays, data, folds))


def read_saved_similarities(path: Path, queries: Sequence[Query]) -> tuple[np.ndarray, ...]:
    """What `save` wrote: similarities of each query to its candidates; DataError where one is missing."""
    return _from_similarities(path, _read_arrays(path), queries)


def read_saved_members(path: Path, queries: Sequence[Query]) -> tuple[tuple[np.ndarray, ...], ...]:
    """What `save` wrote of each member, in its order; nothing where the file is of before members were kept."""
    arrays = _read_arrays(path)
    return tuple(_from_similarities(path, arrays | {"similarity": own}, queries) for own in arrays.get("alone", ()))


def save_similarities(
    path: Path, queries: Sequence[Query], similarities: Sequence[np.ndarray], alone: Sequence[tuple[str, Sequence[np.ndarray]]] = ()
) -> None:
    """Writes similarities of each query to its candidates, one row a pair: query (N,) text, candidate (N,), similarity (N,) float32.

    alone: name and similarities of each of M members, which become members (M,) text and alone (M, N) float32.
    """
    counts = [len(query.candidates) for query in queries]
    arrays = {
        "query": np.repeat([query.id for query in queries], counts),
        "candidate": np.concatenate([query.candidates for query in queries]),
        "similarity": np.concatenate(similarities).astype(np.float32),
    }
    if alone:
        arrays["members"] = np.array([name for name, _ in alone])
        arrays["alone"] = np.stack([np.concatenate(own) for _, own in alone]).astype(np.float32)
    files.write_npz(path, arrays)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return files.read_npz(path)
    except (OSError, ValueError) as broken:
        raise DataError(path, "cannot be read as .npz", "write it with numpy.savez, without objects") from broken


def _from_ranks(path: Path, queries: Sequence[Query]) -> tuple[np.ndarray, ...]:
    """-rank of each candidate; those that are not listed share the mean of the ranks that are left."""
    answers = submission.read_submission(path, queries, submission.submission_columns(path))
    similarities = []
    for query in queries:
        order = {number: rank for rank, number in enumerate(answers[query_key(query.id)])}
        last = (len(order) + len(query.candidates) - 1) / 2
        similarities.append(-np.array([order.get(number, last) for number in query.candidates]))
    return tuple(similarities)


def _from_similarities(path: Path, arrays: Mapping[str, np.ndarray], queries: Sequence[Query]) -> tuple[np.ndarray, ...]:
    names = ("query", "candidate", "similarity")
    if missing := [name for name in names if name not in arrays]:
        raise DataError(path, f"has no array {missing[0]!r}", f"it needs {', '.join(names)}, one row for each candidate of each query")
    asked, numbers, told = (arrays[name] for name in names)
    if not asked.shape == numbers.shape == told.shape == (asked.size,):
        shapes = ", ".join(f"{name} {arrays[name].shape}" for name in names)
        raise DataError(path, f"arrays of different shapes: {shapes}", "give each one row for each candidate of each query")
    if numbers.dtype.kind not in "iu" or told.dtype.kind not in "fiu" or not np.isfinite(told).all():
        raise DataError(path, "candidates must be whole numbers, similarities finite numbers", "see what wrote it")
    found: dict[tuple[str, int], float] = {}
    for row, (query, number, similarity) in enumerate(zip(asked.tolist(), numbers.tolist(), told.tolist(), strict=True)):
        pair = (query_key(str(query)), number)
        if pair in found:
            raise DataError(path, f"row {row}: candidate {number} of query {query} is there twice", "give each pair once")
        found[pair] = similarity
    try:
        return tuple(np.array([found[query_key(query.id), number] for number in query.candidates]) for query in queries)
    except KeyError as missing:
        query, number = missing.args[0]
        raise DataError(path, f"no similarity of candidate {number} of query {query}", "rank the same test folder") from missing


def _read_out_of_fold(path: Path, arrays: Mapping[str, np.ndarray], data: TrainingData, folds: Folds) -> dict[int, np.ndarray]:
    told = {int(found[1]): arrays[name] for name in arrays if (found := OOF_KEY.fullmatch(name))}
    if told and str(arrays.get("folds")) != folds.hash:
        problem = f"its oof arrays are of other folds ({arrays.get('folds')}, now {folds.hash})"
        raise DataError(path, problem, "make them anew for folds.csv as it is")
    for fold, similarity in told.items():
        held = folds.val_idx(fold)
        shape = (sum(len(data.training.captions[row]) for row in held), len(held))
        if similarity.shape != shape or similarity.dtype.kind not in "fiu" or not np.isfinite(similarity).all():
            problem = f"oof{fold} must be {shape} finite numbers, captions x held-out motions; it is {similarity.dtype} {similarity.shape}"
            raise DataError(path, problem, "order motions as folds.csv does, captions as their files do")
    return told
