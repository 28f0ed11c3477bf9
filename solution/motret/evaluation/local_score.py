"""The local score of runs: each motion is ranked by the model that was not trained on it.

Several runs are averaged on one scale (`z_score`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from motret.data.folds import Folds
from motret.errors import RunError
from motret.evaluation import gallery_ranks, metrics
from motret.evaluation.gallery_ranks import GalleryRanks, LocalScore
from motret.evaluation.metrics import Score
from motret.evaluation.slices import HeldOutCaptions
from motret.evaluation.z_score import ZScore
from motret.runs import oof
from motret.runs.oof import OutOfFold
from motret.runs.run import Run
from motret.runs.selection import folds_of_runs

PART_WEIGHTS = (0.1, 0.2, 0.4, 0.8)
"""What `--part_weight auto` tries besides 0."""


def fold_similarity(
    runs: Sequence[Run], fold: int, weights: Sequence[float] | None = None
) -> tuple[np.ndarray, OutOfFold]:
    """Mean similarity (C, M) of runs over a fold's gallery, each on its own scale.

    The second result is the gallery. weights: by default equal ones.
    """
    galleries = [oof.load_out_of_fold(run, fold) for run in runs]
    similarities = [
        out.similarity(run.part_weight) for run, out in zip(runs, galleries, strict=True)
    ]
    scores = [ZScore.of(similarity)(similarity) for similarity in similarities]
    return np.average(scores, axis=0, weights=weights), galleries[0]


def fold_vectors(runs: Sequence[Run], fold: int) -> tuple[np.ndarray, np.ndarray, OutOfFold]:
    """(C, v) and (M, v) whose products rank a fold's gallery as `fold_similarity` does.

    So no matrix of all similarities is needed. Several runs stand side by side, each divided by its
    standard deviation; means do not change a ranking. The third result is the gallery.
    """
    galleries = [oof.load_out_of_fold(run, fold) for run in runs]
    embeddings = [out.vectors(run.part_weight) for run, out in zip(runs, galleries, strict=True)]
    if len(embeddings) == 1:
        return *embeddings[0], galleries[0]
    texts = [text / ZScore.of_vectors(text, motion).deviation for text, motion in embeddings]
    motions = [motion for _, motion in embeddings]
    return np.concatenate(texts, axis=1), np.concatenate(motions, axis=1), galleries[0]


def paired_difference(run: Run, other: Run, folds: Folds) -> Score:
    """A run's local score minus another's, motion by motion over the folds that both have."""
    common = folds_of_runs([run, other], range(folds.count))
    ranks, other_ranks = (
        [_rank_fold([either], fold, folds)[0] for fold in common] for either in (run, other)
    )
    differences = gallery_ranks.motion_values(ranks) - gallery_ranks.motion_values(other_ranks)
    return metrics.cluster_robust_mean(differences, gallery_ranks.motion_groups(ranks))


def with_part_weight(run: Run, folds: Folds, requested: float | str) -> Run:
    """The run with a part weight; auto: the one with the best local score.

    auto is 0 where the gain is within its standard error. A run without body parts stays as it is.
    RunError where it has no out-of-fold embeddings of its parts.
    """
    if not run.config.parts.use_gar or requested == 0:
        return run
    if any(oof.load_out_of_fold(run, fold).named is None for fold in run.finished_folds()[:1]):
        problem = "kept no out-of-fold embeddings of its parts"
        raise RunError(run.folder, problem, "train it again, or leave --part_weight out")
    if requested != "auto":
        return replace(run, part_weight=float(requested))
    candidates = [replace(run, part_weight=weight) for weight in PART_WEIGHTS]
    gains = [paired_difference(candidate, run, folds) for candidate in candidates]
    best = int(np.argmax([gain.mean for gain in gains]))
    return candidates[best] if gains[best].mean > gains[best].error else run


def out_of_fold_score(runs: Sequence[Run], folds: Folds) -> LocalScore:
    """The local score of the runs' mean similarity, over the folds they all have.

    Each fold is a gallery of its own. Similarities are formed and counted in chunks: those of 6,000
    motions and 18,000 captions would take a gigabyte and more at once.
    """
    galleries, tables, by_fold = [], [], {}
    for fold in folds_of_runs(runs, range(folds.count)):
        ranks, text, motion = _rank_fold(runs, fold, folds)
        galleries.append(ranks)
        by_fold[fold] = gallery_ranks.mean_score([ranks])
        motion_ranks = metrics.motion_to_text_ranks(text, motion, ranks.motion_idx)
        tables.append(metrics.retrieval_table(ranks.better, ranks.tied, motion_ranks))
    counts = [len(ranks.motion_idx) for ranks in galleries]
    retrieval = {
        way: {
            name: float(np.average([table[way][name] for table in tables], weights=counts))
            for name in tables[0][way]
        }
        for way in tables[0]
    }
    return LocalScore(gallery_ranks.mean_score(galleries), by_fold, retrieval)


def held_out_captions(
    runs: Sequence[Run], folds: Folds, captions: Sequence[Sequence[str]]
) -> HeldOutCaptions:
    """Score of each caption by the runs' mean similarity, over the folds they all have.

    captions: of each training motion.
    """
    galleries, data_idx = {}, {}
    for fold in folds_of_runs(runs, range(folds.count)):
        galleries[fold], _, _ = _rank_fold(runs, fold, folds)
        data_idx[fold] = oof.load_out_of_fold(runs[0], fold).data_idx
    return HeldOutCaptions.of(galleries, data_idx, captions)


def _rank_fold(
    runs: Sequence[Run], fold: int, folds: Folds
) -> tuple[GalleryRanks, np.ndarray, np.ndarray]:
    """Ranks of one fold's right motions, and the embeddings (C, v), (M, v) they come from."""
    text, motion, out = fold_vectors(runs, fold)
    better, tied = metrics.count_better_chunked(text, motion, out.motion_idx)
    return GalleryRanks(better, tied, out.motion_idx, folds.group[out.data_idx]), text, motion
