"""Members made elsewhere: rankings like a submission, or similarities as kept with one.

FILE.csv    a submission with any number of candidates a query: its ranks are what counts
FILE.npz    query (N,) text, candidate (N,) and similarity (N,) numbers,
            one entry for each candidate of each query

For a weight by score an .npz also holds, for each fold k, `oof<k>`: (captions, motions)
similarities of the motions that fold k holds out, by a model that was not trained on them, motions
in the order of folds.csv and their captions in the order of their files; and `folds`, the hash in
folds.json. A pair that is not scored is NaN: each caption is then ranked among the motions that it
is scored with, which must be drawn at random.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.ensemble.galleries import ExternalGallery
from motret.errors import ConfigError, DataError
from motret.evaluation.z_score import ZScore
from motret.formats import submission
from motret.formats.challenge import POOL_SIZE
from motret.formats.queries import Query
from motret.formats.text_files import query_key
from motret.utils import files, reading

OOF_KEY = re.compile(r"oof([0-9]{1,6})")
SPARE_BYTES = 100_000_000
"""What a member's file may hold besides what is read of it."""


@dataclass(frozen=True)
class ExternalPredictions:
    """A file read. similarities: of each query to its candidates, one (n,) array a query.

    out_of_fold: fold -> (captions, motions) similarities, where the file has them. from_tokens:
    whether rerank.py wrote it, from motion tokens.
    """

    name: str
    similarities: tuple[np.ndarray, ...]
    out_of_fold: Mapping[int, np.ndarray] = field(default_factory=dict)
    from_tokens: bool = False


@dataclass(frozen=True)
class ExternalMember:
    """A member made elsewhere whose weight is fitted on its out-of-fold predictions.

    It has no models, so no views and no query bank.
    """

    predictions: ExternalPredictions

    @property
    def name(self) -> str:
        return self.predictions.name

    @property
    def folds(self) -> Mapping[int, np.ndarray]:
        return self.predictions.out_of_fold

    @property
    def is_partial(self) -> bool:
        """Whether some held-out pairs are not scored."""
        return any(np.isnan(scores).any() for scores in self.folds.values())

    def gallery(self, fold: int) -> ExternalGallery:
        """What a fold holds out, as the file scores it."""
        return ExternalGallery(self.predictions.out_of_fold[fold].astype(np.float32))

    def standardized_similarities(self) -> list[np.ndarray]:
        """Of each query to its candidates, on the mean scale of the held-out galleries."""
        scale = ZScore.mean_of([self.gallery(fold).scale for fold in self.folds])
        return [scale(similarity) for similarity in self.predictions.similarities]


@dataclass(frozen=True)
class FixedWeightMember:
    """A member made elsewhere without out-of-fold predictions.

    It cannot be scored, so its weight is given.
    """

    predictions: ExternalPredictions
    weight: float

    @property
    def name(self) -> str:
        return self.predictions.name

    def standardized_similarities(self) -> list[np.ndarray]:
        """Of each query to its candidates, standardized over all pairs of the file."""
        scale = ZScore.of(np.concatenate(self.predictions.similarities))
        return [scale(similarity) for similarity in self.predictions.similarities]


def read_external_members(
    paths: Sequence[Path],
    weights: Sequence[float],
    queries: Sequence[Query],
    data: TrainingData,
    folds: Folds,
) -> tuple[list[ExternalMember], list[FixedWeightMember]]:
    """The members made elsewhere: those to be weighed, and those with a given weight.

    ConfigError where there is not one weight for each of the others; DataError as in
    `read_external`.
    """
    predictions = [
        replace(read_external(path, queries, data, folds), name=name)
        for path, name in zip(paths, member_names(paths), strict=True)
    ]
    scored = [ExternalMember(file) for file in predictions if file.out_of_fold]
    unscored = [file for file in predictions if not file.out_of_fold]
    if len(unscored) != len(weights):
        names = ", ".join(file.name for file in unscored) or "none of --members"
        without = f"{len(unscored)} members without out-of-fold predictions ({names})"
        problem = f"{len(weights)} weights for {without}"
        raise ConfigError(
            "--member_weight",
            problem,
            "no weight can be fitted for those: give each a fraction of the mean, as 0.2",
        )
    return scored, [
        FixedWeightMember(file, weight) for file, weight in zip(unscored, weights, strict=True)
    ]


def member_names(paths: Sequence[Path]) -> list[str]:
    """The name of each file, with that of its folder where several are called the same."""
    names = [path.name for path in paths]
    return [
        f"{path.resolve().parent.name}/{path.name}" if names.count(path.name) > 1 else path.name
        for path in paths
    ]


def read_external(
    path: Path, queries: Sequence[Query], data: TrainingData, folds: Folds
) -> ExternalPredictions:
    """Predictions for these queries; DataError where the file lacks a candidate of a query."""
    if path.suffix == ".csv":
        return ExternalPredictions(path.name, _from_ranks(path, queries))
    if path.suffix != ".npz":
        fix = "give ranks like a submission, or similarities as they are kept with one"
        raise DataError(path, "is neither .csv nor .npz", fix)
    arrays = _read_arrays(path, _largest_member(queries, data, folds))
    similarities = _from_similarities(path, arrays, queries)
    out_of_fold = _read_out_of_fold(path, arrays, data, folds)
    return ExternalPredictions(path.name, similarities, out_of_fold, "from_tokens" in arrays)


def _largest_member(queries: Sequence[Query], data: TrainingData, folds: Folds) -> int:
    """Bytes of a member's arrays at most: all that is read of it, as doubles, and some more."""
    n_pairs = sum(len(query.candidates) for query in queries)
    captions = np.array([len(captions) for captions in data.training.captions])
    galleries = [folds.val_idx(fold) for fold in range(folds.count)]
    n_similarities = sum(int(captions[val_idx].sum()) * len(val_idx) for val_idx in galleries)
    return SPARE_BYTES + 100 * n_pairs + 8 * n_similarities


def read_saved_similarities(path: Path, queries: Sequence[Query]) -> tuple[np.ndarray, ...]:
    """The similarities of each query to its candidates that `save_similarities` wrote.

    DataError where one is missing.
    """
    return _from_similarities(path, _read_arrays(path), queries)


def read_saved_members(path: Path, queries: Sequence[Query]) -> tuple[tuple[np.ndarray, ...], ...]:
    """The similarities of each member that `save_similarities` wrote, in its order.

    None where an earlier version wrote the file.
    """
    arrays = _read_arrays(path)
    members = arrays.get("alone", np.empty((0, 0)))
    if members.ndim != 2 or members.dtype.kind != "f":
        fix = "run ensemble.py again, which writes it"
        raise DataError(path, f"its array alone is {members.dtype} {members.shape}", fix)
    return tuple(
        _from_similarities(path, arrays | {"similarity": similarity}, queries)
        for similarity in members
    )


def save_similarities(
    path: Path,
    queries: Sequence[Query],
    similarities: Sequence[np.ndarray],
    members: Sequence[tuple[str, Sequence[np.ndarray]]] = (),
) -> None:
    """Writes similarities of each query to its candidates, N pairs in all.

    The arrays are query (N,) text, candidate (N,), similarity (N,) float32; members: name and
    similarities of each of M members, written as members (M,) text and alone (M, N) float32.
    """
    arrays = _test_arrays(queries, similarities)
    if members:
        arrays["members"] = np.array([name for name, _ in members])
        arrays["alone"] = np.stack([np.concatenate(of_member) for _, of_member in members]).astype(
            np.float32
        )
    files.write_npz(path, arrays)


def save_member(
    path: Path,
    queries: Sequence[Query],
    similarities: Sequence[np.ndarray],
    out_of_fold: Mapping[int, np.ndarray],
    folds_hash: str,
) -> None:
    """Writes rerank.py's file for --members, whose weight is fitted: similarities of each query to
    its candidates, and of each fold those of its captions and held-out motions (C, M)."""
    arrays = _test_arrays(queries, similarities)
    arrays |= {f"oof{fold}": scores for fold, scores in out_of_fold.items()}
    arrays |= {"folds": np.array(folds_hash), "from_tokens": np.array(True)}
    files.write_npz(path, arrays)


def _test_arrays(
    queries: Sequence[Query], similarities: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays query, candidate and similarity, one entry for each pair."""
    counts = [len(query.candidates) for query in queries]
    return {
        "query": np.repeat([query.id for query in queries], counts),
        "candidate": np.concatenate([query.candidates for query in queries]),
        "similarity": np.concatenate(similarities).astype(np.float32),
    }


def _read_arrays(path: Path, max_bytes: int = reading.MAX_ARRAY_BYTES) -> dict[str, np.ndarray]:
    fix = "write it with numpy.savez, without objects"
    return reading.read_npz(path, fix, max_bytes=max_bytes)


def _from_ranks(path: Path, queries: Sequence[Query]) -> tuple[np.ndarray, ...]:
    """-rank of each candidate; unlisted ones share the mean of the ranks after the last."""
    answers = submission.read_submission(path, queries, submission.submission_columns(path))
    similarities = []
    for query in queries:
        ranks = {candidate: rank for rank, candidate in enumerate(answers[query_key(query.id)])}
        unlisted = (len(ranks) + len(query.candidates) - 1) / 2
        similarities.append(
            -np.array([ranks.get(candidate, unlisted) for candidate in query.candidates])
        )
    return tuple(similarities)


def _from_similarities(
    path: Path, arrays: Mapping[str, np.ndarray], queries: Sequence[Query]
) -> tuple[np.ndarray, ...]:
    """Similarities of each query to its candidates, from one entry for each pair in any order."""
    names = ("query", "candidate", "similarity")
    if missing := [name for name in names if name not in arrays]:
        fix = f"it needs {', '.join(names)}, one entry for each candidate of each query"
        raise DataError(path, f"has no array {missing[0]!r}", fix)
    query_ids, candidates, similarities = (arrays[name] for name in names)
    if not query_ids.shape == candidates.shape == similarities.shape == (query_ids.size,):
        shapes = ", ".join(f"{name} {arrays[name].shape}" for name in names)
        fix = "give each one entry for each candidate of each query"
        raise DataError(path, f"arrays of different shapes: {shapes}", fix)
    if (
        query_ids.dtype.kind not in "UTiu"
        or candidates.dtype.kind not in "iu"
        or similarities.dtype.kind not in "fiu"
        or not np.isfinite(similarities).all()
    ):
        problem = "queries must be text, candidates whole numbers, similarities finite numbers"
        raise DataError(path, problem, "look at the program that wrote it")
    by_pair: dict[tuple[str, int], float] = {}
    pairs = zip(query_ids.tolist(), candidates.tolist(), similarities.tolist(), strict=True)
    for index, (query_id, candidate, similarity) in enumerate(pairs):
        pair = (query_key(str(query_id)), candidate)
        if pair in by_pair:
            problem = f"entry {index}: candidate {candidate} of query {query_id} is there twice"
            raise DataError(path, problem, "give each pair once")
        by_pair[pair] = similarity
    for query in queries:
        for candidate in query.candidates:
            if (query_key(query.id), candidate) not in by_pair:
                problem = f"no similarity of candidate {candidate} of query {query_key(query.id)}"
                raise DataError(path, problem, "rank the same test folder")
    return tuple(
        np.array([by_pair[query_key(query.id), candidate] for candidate in query.candidates])
        for query in queries
    )


def _read_out_of_fold(
    path: Path, arrays: Mapping[str, np.ndarray], data: TrainingData, folds: Folds
) -> dict[int, np.ndarray]:
    """Fold -> (captions, motions) similarities, where the file has them.

    DataError where they are of other folds or of another shape.
    """
    out_of_fold = {
        int(match[1]): arrays[name] for name in arrays if (match := OOF_KEY.fullmatch(name))
    }
    if out_of_fold and str(arrays.get("folds")) != folds.hash:
        problem = f"its oof arrays belong to other folds ({arrays.get('folds')}, now {folds.hash})"
        raise DataError(path, problem, "make them again for folds.csv as it is")
    for fold, similarity in out_of_fold.items():
        val_idx = folds.val_idx(fold)
        shape = (
            sum(len(data.training.captions[motion_idx]) for motion_idx in val_idx),
            len(val_idx),
        )
        if (
            similarity.shape != shape
            or similarity.dtype.kind not in "fiu"
            or np.isinf(similarity).any()
            or not _scores_enough(similarity, val_idx, data)
        ):
            expected = (
                f"{shape} finite numbers, captions x held-out motions (NaN for pairs that are not "
                f"scored; {POOL_SIZE} of each caption at least, its own motion among them)"
            )
            actual = f"{similarity.dtype} {similarity.shape}"
            problem = f"oof{fold} must be {expected}; it is {actual}"
            raise DataError(
                path, problem, "order motions as folds.csv does, captions as their files do"
            )
    return out_of_fold


def _scores_enough(similarity: np.ndarray, val_idx: np.ndarray, data: TrainingData) -> bool:
    """Whether each caption (C,) is scored with its own motion, and with enough others."""
    scored = ~np.isnan(similarity)
    counts = [len(data.training.captions[index]) for index in val_idx]
    motion_idx = np.repeat(np.arange(len(val_idx)), counts)
    enough = scored.sum(axis=1) >= min(POOL_SIZE, len(val_idx))
    return bool(scored[np.arange(len(motion_idx)), motion_idx].all() and enough.all())
