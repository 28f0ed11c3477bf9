"""Out-of-fold embeddings of a run: each fold's model on the motions it has not seen (`oof.npz`)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret.errors import RunError
from motret.runs.run import Run
from motret.utils import files

FORMER_NAMES = {"owner": "motion_idx", "row": "data_idx"}
"""Arrays of an `oof.npz` by the names that earlier versions gave them."""


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
        """(C, M) cosines of captions and motions.

        Where parts are known, `part_weight` times the cosines of the parts that a caption names are
        added.
        """
        text, motion = self.vectors(part_weight)
        similarity: np.ndarray = text @ motion.T
        return similarity

    def vectors(self, part_weight: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) and (M, v) vectors whose products are the similarities."""
        if not part_weight:
            return self.text, self.motion
        if self.motion_parts is None or self.text_parts is None or self.named is None:
            return self.text, self.motion
        text = weighted_text_vectors(self.text, self.text_parts, self.named, part_weight)
        return text, concat_part_vectors(self.motion, self.motion_parts)


def weighted_text_vectors(
    text: np.ndarray, parts: np.ndarray, named: np.ndarray, weight: float
) -> np.ndarray:
    """(C, d + P d) captions' vectors, weighted for the product with `concat_part_vectors`.

    The product adds `weight` times the mean cosine over the parts that a caption names; 0 where it
    names none. text: (C, d) and parts: (C, P, d) unit vectors; named: (C, P).
    """
    n_named = np.maximum(named.sum(axis=1, keepdims=True), 1)
    part_weights = (weight * named / n_named)[..., None].astype(text.dtype)
    return np.concatenate([text, (parts * part_weights).reshape(len(text), -1)], axis=1)


def concat_part_vectors(motion: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(M, d + P d) of unit vectors (M, d) of motions and (M, P, d) of their parts."""
    return np.concatenate([motion, parts.reshape(len(motion), -1)], axis=1)


def save_out_of_fold(path: Path, out_of_fold: OutOfFold) -> None:
    """Writes the arrays to an .npz file, whole or not at all."""
    arrays = {name: array for name, array in vars(out_of_fold).items() if array is not None}
    files.write_npz(path, arrays)


def load_out_of_fold(run: Run, fold: int) -> OutOfFold:
    """The out-of-fold embeddings of a finished fold. RunError where they cannot be read."""
    path = run.fold_dir(fold) / "oof.npz"
    try:
        content = files.read_npz(path)
        arrays = {FORMER_NAMES.get(name, name): array for name, array in content.items()}
        fields = OutOfFold.__dataclass_fields__
        return OutOfFold(**{name: arrays[name] for name in fields if name in arrays})
    except (OSError, ValueError, TypeError) as error:
        fix = "remove it and train the fold again with --resume auto"
        raise RunError(path, "cannot be read", fix) from error
