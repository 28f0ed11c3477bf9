"""Similarities to rankings: members on one scale, their mean, the local score it earns, the rows of a submission."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from motret.data.folds import Folds
from motret.errors import RunError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks, LocalScore
from motret.evaluation.metrics import Score
from motret.evaluation.z_score import ZScore
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.run import Run, folds_of_runs

PART_WEIGHTS = (0.1, 0.2, 0.4, 0.8)
"""What `--part_weight auto` tries beside 0."""


def fold_similarity(members: Sequence[Run], fold: int, weights: Sequence[float] | None = None) -> tuple[np.ndarray, OutOfFold]:
    """The members' mean similarity (C, M) over one fold's gallery, each on its own scale, and whose captions and motions they are.

    weights: by default equal ones.
    """
    outs = [oof.load_out_of_fold(run, fold) for run in members]
    found = [out.similarity(run.part_weight) for run, out in zip(members, outs, strict=True)]
    return np.average([ZScore.of(similarity)(similarity) for similarity in found], axis=0, weights=weights), outs[0]


def fold_vectors(members: Sequence[Run], fold: int) -> tuple[np.ndarray, np.ndarray, OutOfFold]:
    """(C, v) and (M, v) vectors whose products order one fold's gallery as `fold_similarity` does, and whose they are.

    So that no matrix of all similarities is needed: several members stand side by side, each divided by its deviation; means do not
    matter to an order.
    """
    outs = [oof.load_out_of_fold(run, fold) for run in members]
    told = [out.vectors(run.part_weight) for run, out in zip(members, outs, strict=True)]
    if len(told) == 1:
        return *told[0], outs[0]
    text = [own / ZScore.of_vectors(own, motion).deviation for own, motion in told]
    return np.concatenate(text, axis=1), np.concatenate([motion for _, motion in told], axis=1), outs[0]


def _count_ranks(members: Sequence[Run], fold: int, folds: Folds) -> tuple[GalleryRanks, np.ndarray, np.ndarray]:
    """Where one fold's right motions stand, and the vectors (C, v), (M, v) that say so."""
    text, motion, out = fold_vectors(members, fold)
    return (
        GalleryRanks(*metrics.count_better_chunked(text, motion, out.motion_idx), out.motion_idx, folds.group[out.data_idx]),
        text,
        motion,
    )


def paired_difference(run: Run, other: Run, folds: Folds) -> Score:
    """How much better a run's local score is than another's, motion by motion over the folds that both have finished."""
    common = folds_of_runs([run, other], range(folds.count))
    one, two = ([_count_ranks([member], fold, folds)[0] for fold in common] for member in (run, other))
    return metrics.cluster_robust_mean(
        gallery_ranks.motion_values(one) - gallery_ranks.motion_values(two), gallery_ranks.motion_groups(one)
    )


def with_part_weight(run: Run, folds: Folds, wanted: float | str) -> Run:
    """The run with the part weight that is wanted; auto: the one with the best local score. A run that knows no parts stays as it is.

    auto is 0 where the gain is within its standard error.
    """
    if not run.config.parts.use_gar or wanted == 0:
        return run
    if any(oof.load_out_of_fold(run, fold).named is None for fold in run.finished_folds()[:1]):
        raise RunError(run.folder, "kept nothing of its parts out of fold", "train it again, or leave --part_weight out")
    if wanted != "auto":
        return replace(run, part_weight=wanted)
    tried = [replace(run, part_weight=weight) for weight in PART_WEIGHTS]
    gains = [paired_difference(one, run, folds) for one in tried]
    best = int(np.argmax([gain.mean for gain in gains]))
    return tried[best] if gains[best].mean > gains[best].error else run


def out_of_fold_score(members: Sequence[Run], folds: Folds) -> LocalScore:
    """The local score of the members' mean similarity, over the folds they all have; each fold is a gallery of its own.

    Similarities are made and counted in blocks: 6,000 motions and 18,000 captions would take a gigabyte and more at once.
    """
    stood, tables, by_fold = [], [], {}
    for fold in folds_of_runs(members, range(folds.count)):
        own, text, motion = _count_ranks(members, fold, folds)
        stood.append(own)
        by_fold[fold] = gallery_ranks.mean_score([own])
        tables.append(metrics.retrieval_table(own.better, own.tied, metrics.motion_to_text_ranks(text, motion, own.motion_idx)))
    captions = [len(own.motion_idx) for own in stood]
    retrieval = {
        way: {name: float(np.average([table[way][name] for table in tables], weights=captions)) for name in tables[0][way]}
        for way in tables[0]
    }
    return LocalScore(gallery_ranks.mean_score(stood), by_fold, retrieval)
