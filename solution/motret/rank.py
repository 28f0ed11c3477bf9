"""Similarities to rankings: members on one scale, their mean, the local score it earns, the rows of a submission."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret import metrics, runs, standing
from motret.challenge import Query
from motret.dataset import TrainingData
from motret.faults import RunFault
from motret.folds import Folds
from motret.metrics import Score
from motret.runs import OutOfFold, Run
from motret.standing import Standing

PART_WEIGHTS = (0.1, 0.2, 0.4, 0.8)
"""What `--part_weight auto` tries beside 0."""


@dataclass(frozen=True)
class LocalScore:
    """What some members score together on motions they had not seen.

    score: expected competition score; retrieval: recalls over a fold's whole gallery, weighted by captions, in both directions;
    by_fold: the score of each fold.
    """

    score: Score
    by_fold: dict[int, Score]
    retrieval: dict[str, dict[str, float]]

    def line(self, name: str) -> str:
        """`name: score 0.7312 +- 0.0041 (...)`."""
        folds = f"{len(self.by_fold)} fold{'s' if len(self.by_fold) != 1 else ''}"
        pools = sorted({min(metrics.POOL, score.motions) for score in self.by_fold.values()})  # a smaller fold is its own pool
        drawn = f"pools of {' to '.join(map(str, pools[:1] + pools[1:][-1:]))}"
        return f"{name}: score {self.score} ({self.score.motions} motions in {self.score.groups} groups, {folds}, {drawn})"


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a member's similarities over the gallery it had not seen: they put members on one scale."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, similarity: np.ndarray) -> "Scale":
        return cls(float(similarity.mean()), max(float(similarity.std()), 1e-12))

    @classmethod
    def of_vectors(cls, text: np.ndarray, motion: np.ndarray) -> "Scale":
        """That of the products (C, M) of vectors (C, d) and (M, d), which are not made.

        Their mean is the product of the mean vectors. The mean of their squares is sum(A * B) / (C M) with A, B: (d, d) the sums of
        outer products of the vectors with themselves.
        """
        one, other = text.astype(np.float64), motion.astype(np.float64)
        mean = float(one.mean(axis=0) @ other.mean(axis=0))
        square = float(((one.T @ one) * (other.T @ other)).sum()) / (len(one) * len(other))
        return cls(mean, max(max(square - mean**2, 0.0) ** 0.5, 1e-12))

    @classmethod
    def mean_of(cls, scales: Sequence["Scale"]) -> "Scale":
        """For a model that has no gallery of its own."""
        return cls(float(np.mean([scale.mean for scale in scales])), float(np.mean([scale.deviation for scale in scales])))

    def __call__(self, similarity: np.ndarray) -> np.ndarray:
        return (similarity - self.mean) / self.deviation


def must_belong(run: Run, data: TrainingData, folds: Folds, flag: str = "--runs") -> None:
    """RunFault where a run was trained on other data or folds: its out-of-fold score would not be one. flag: that named it."""
    for what, there, here in (("data", run.data, data.fingerprint), ("folds", run.folds, folds.hash)):
        if there != here:
            raise RunFault(run.folder, f"was trained on other {what} ({there}, now {here})", f"leave it out of {flag}, or train it again")


def choose(named: Sequence[str], out_dir: Path, data: TrainingData, folds: Folds, partial: bool = False, flag: str = "--runs") -> list[Run]:
    """The runs that are named (by path, or by name in `out_dir`), or all of this data and these folds that are finished.

    partial: one finished fold is enough; flag: that names them.
    """
    if named:
        chosen = [runs.open_named(name, out_dir) for name in named]
        for run in chosen:
            must_belong(run, data, folds, flag)
        return chosen
    found, least = runs.find_runs(out_dir), 1 if partial else folds.count
    chosen = [run for run in found if (run.data, run.folds) == (data.fingerprint, folds.hash) and len(run.finished()) >= least]
    if not chosen:
        wrong = f"none of its {len(found)} runs is finished and of this data and these folds" if found else "holds no run"
        raise RunFault(out_dir, wrong, f"train one: `python solution/train.py holistic`; or name partial ones with {flag}")
    return chosen


def common_folds(names: Sequence[str], finished: Sequence[Collection[int]], among: Collection[int]) -> list[int]:
    """The folds that all have finished who are called so. RunFault where there is none."""
    common = sorted(set(among).intersection(*finished))
    if not common:
        raise RunFault(", ".join(names), "no fold that all of them have finished", "train the same folds of each, with --resume auto")
    return common


def folds_of_runs(members: Sequence[Run], among: Collection[int]) -> list[int]:
    """The folds that all of these runs have finished, as `common_folds`."""
    return common_folds([run.name for run in members], [run.finished() for run in members], among)


def fold_similarity(members: Sequence[Run], fold: int, weights: Sequence[float] | None = None) -> tuple[np.ndarray, OutOfFold]:
    """The members' mean similarity (C, M) over one fold's gallery, each on its own scale, and whose captions and motions they are.

    weights: by default equal ones.
    """
    outs = [runs.load_out_of_fold(run, fold) for run in members]
    found = [out.similarity(run.part_weight) for run, out in zip(members, outs, strict=True)]
    return np.average([Scale.of(similarity)(similarity) for similarity in found], axis=0, weights=weights), outs[0]


def fold_vectors(members: Sequence[Run], fold: int) -> tuple[np.ndarray, np.ndarray, OutOfFold]:
    """(C, v) and (M, v) vectors whose products order one fold's gallery as `fold_similarity` does, and whose they are.

    So that no matrix of all similarities is needed: several members stand side by side, each divided by its deviation; means do not
    matter to an order.
    """
    outs = [runs.load_out_of_fold(run, fold) for run in members]
    told = [out.vectors(run.part_weight) for run, out in zip(members, outs, strict=True)]
    if len(told) == 1:
        return *told[0], outs[0]
    text = [own / Scale.of_vectors(own, motion).deviation for own, motion in told]
    return np.concatenate(text, axis=1), np.concatenate([motion for _, motion in told], axis=1), outs[0]


def _counted(members: Sequence[Run], fold: int, folds: Folds) -> tuple[Standing, np.ndarray, np.ndarray]:
    """Where one fold's right motions stand, and the vectors (C, v), (M, v) that say so."""
    text, motion, out = fold_vectors(members, fold)
    return Standing(*metrics.count_better_in_blocks(text, motion, out.owner), out.owner, folds.group[out.row]), text, motion


def difference(run: Run, other: Run, folds: Folds) -> Score:
    """How much better a run's local score is than another's, motion by motion over the folds that both have finished."""
    common = folds_of_runs([run, other], range(folds.count))
    one, two = ([_counted([member], fold, folds)[0] for fold in common] for member in (run, other))
    return metrics.clustered(standing.values(one) - standing.values(two), standing.groups(one))


def with_parts(run: Run, folds: Folds, wanted: float | str) -> Run:
    """The run with the part weight that is wanted; auto: the one with the best local score. A run that knows no parts stays as it is.

    auto is 0 where the gain is within its standard error.
    """
    if not run.settings.parts.use_gar or wanted == 0:
        return run
    if any(runs.load_out_of_fold(run, fold).named is None for fold in run.finished()[:1]):
        raise RunFault(run.folder, "kept nothing of its parts out of fold", "train it again, or leave --part_weight out")
    if wanted != "auto":
        return replace(run, part_weight=wanted)
    tried = [replace(run, part_weight=weight) for weight in PART_WEIGHTS]
    gains = [difference(one, run, folds) for one in tried]
    best = int(np.argmax([gain.mean for gain in gains]))
    return tried[best] if gains[best].mean > gains[best].error else run


def out_of_fold_score(members: Sequence[Run], folds: Folds) -> LocalScore:
    """The local score of the members' mean similarity, over the folds they all have; each fold is a gallery of its own.

    Similarities are made and counted in blocks: 6,000 motions and 18,000 captions would take a gigabyte and more at once.
    """
    stood, tables, by_fold = [], [], {}
    for fold in folds_of_runs(members, range(folds.count)):
        own, text, motion = _counted(members, fold, folds)
        stood.append(own)
        by_fold[fold] = standing.score([own])
        tables.append(metrics.retrieval_table(own.better, own.tied, metrics.count_foreign_better_in_blocks(text, motion, own.owner)))
    captions = [len(own.owner) for own in stood]
    retrieval = {
        way: {name: float(np.average([table[way][name] for table in tables], weights=captions)) for name in tables[0][way]}
        for way in tables[0]
    }
    return LocalScore(standing.score(stood), by_fold, retrieval)


def ranking(queries: Sequence[Query], similarities: Sequence[np.ndarray]) -> dict[str, list[int]]:
    """Candidate numbers of each query, best first; ties keep the order of the files."""
    orders = (np.argsort(-similarity, kind="stable") for similarity in similarities)
    return {query.id: [query.candidates[place] for place in order] for query, order in zip(queries, orders, strict=True)}
