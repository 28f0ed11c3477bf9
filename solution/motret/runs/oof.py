"""Out-of-fold embeddings of a run: what each fold's model makes of the motions it has not seen (`oof.npz`)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret.errors import RunError
from motret.runs.run import Run
from motret.utils import files

FORMER_NAMES = {"owner": "motion_idx", "row": "data_idx"}
"""Arrays of an `oof.npz` under the names that earlier versions gave them."""


@dataclass(frozen=True)
class OutOfFold:
    """Embeddings of the motions a fold held out, by the model that had not seen them.

    motion: (M, d) and text: (C, d) unit vectors; ids: (M,); motion_idx: (C,) motion of each
    caption; data_idx: (M,) index of each motion in the training data. Of a model that knows parts
    also motion_parts: (M, 5, d), text_parts: (C, 5, d), and named: (C, 5) which parts a caption
    names.
    """

    ids: np.ndarray
    data_idx: np.ndarray
    motion: np.ndarray
    text: np.ndarray
    motion_idx: np.ndarray
    motion_parts: np.ndarray | None = None
    text_parts: np.ndarray | None = None
    named: np.ndarray | None = None

    def similarity(self, part_weight: float = 0.0) -> np.ndarray:
        """(C, M) captions x motions: cosines, and where parts are known, so many times those of the parts a caption names."""
        text, motion = self.vectors(part_weight)
        return text @ motion.T

    def vectors(self, part_weight: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) vectors whose products are the similarities."""
        if not part_weight or self.named is None:
            return self.text, self.motion
        return weighted_text_vectors(
            self.text, self.text_parts, self.named, part_weight
        ), concat_part_vectors(self.motion, self.motion_parts)


def weighted_text_vectors(
    text: np.ndarray, parts: np.ndarray, named: np.ndarray, weight: float
) -> np.ndarray:
    """(C, d + P d) captions' vectors, whose product with `with_parts` adds `weight` times the mean cosine over the parts they name.

    text: (C, d) and parts: (C, P, d) unit vectors; named: (C, P). A caption that names no part adds 0.
    """
    share = (weight * named / np.maximum(named.sum(axis=1, keepdims=True), 1))[..., None].astype(
        text.dtype
    )
    return np.concatenate([text, (parts * share).reshape(len(text), -1)], axis=1)


def concat_part_vectors(motion: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(M, d + P d) of unit vectors (M, d) of motions and (M, P, d) of their parts."""
    return np.concatenate([motion, parts.reshape(len(motion), -1)], axis=1)


def save_out_of_fold(path: Path, out: OutOfFold) -> None:
    arrays = {name: array for name, array in vars(out).items() if array is not None}
    files.write_npz(path, arrays)


def load_out_of_fold(run: Run, fold: int) -> OutOfFold:
    """What a finished fold's model said of the motions it had not seen."""
    path = run.fold_dir(fold) / "oof.npz"
    try:
        arrays = {
            FORMER_NAMES.get(name, name): array for name, array in files.read_npz(path).items()
        }
        return OutOfFold(
            **{name: arrays[name] for name in OutOfFold.__dataclass_fields__ if name in arrays}
        )
    except (OSError, ValueError, TypeError) as broken:
        raise RunError(
            path, "cannot be read", "remove it and train the fold again with --resume auto"
        ) from broken
