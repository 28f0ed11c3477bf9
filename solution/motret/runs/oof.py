"""Out-of-fold embeddings of a run: each fold's model on the motions it has not seen (`oof.npz`)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret.errors import RunError
from motret.runs.run import Run, training_command
from motret.utils import files, reading

FORMER_NAMES = {"owner": "motion_idx", "row": "data_idx"}
"""Arrays of an `oof.npz` by the names that earlier versions gave them."""
FORMS = {
    "ids": ("U", 1),
    "data_idx": ("iu", 1),
    "motion": ("f", 2),
    "text": ("f", 2),
    "motion_idx": ("iu", 1),
    "motion_parts": ("f", 3),
    "text_parts": ("f", 3),
    "named": ("b", 2),
}
"""Kind of values and number of axes of each array."""
OPTIONAL = ("motion_parts", "text_parts", "named")


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
    return read_out_of_fold(run.fold_dir(fold) / "oof.npz", training_command(run.fold_dir(fold)))


def read_out_of_fold(path: Path, fix: str) -> OutOfFold:
    """The arrays of an `oof.npz`, checked against each other. RunError where they do not fit."""
    content = reading.read_npz(path, fix, RunError)
    arrays = {FORMER_NAMES.get(name, name): array for name, array in content.items()}
    with reading.boundary(path, "cannot be read", fix, RunError):
        out = OutOfFold(
            **{
                name: reading.array_of(arrays, name, kinds, ndim)
                for name, (kinds, ndim) in FORMS.items()
                if name in arrays or name not in OPTIONAL
            }
        )
        _check_shapes(out)
    return out


def _check_shapes(out: OutOfFold) -> None:
    """ValueError where the arrays are of different lengths, or an index is out of range."""
    n_motions, n_captions = len(out.motion), len(out.text)
    pairs = [
        (out.ids, n_motions),
        (out.data_idx, n_motions),
        (out.motion_idx, n_captions),
        (out.motion_parts, n_motions),
        (out.text_parts, n_captions),
        (out.named, n_captions),
    ]
    if any(array is not None and len(array) != count for array, count in pairs):
        raise ValueError("its arrays are of different lengths")
    if out.motion.shape[1] != out.text.shape[1] or not n_motions or not n_captions:
        raise ValueError("its vectors are of different sizes, or there are none")
    if not 0 <= out.motion_idx.min() <= out.motion_idx.max() < n_motions or out.data_idx.min() < 0:
        raise ValueError("it names a motion that it does not hold")
    if not all(np.isfinite(array).all() for array in (out.motion, out.text)):
        raise ValueError("its vectors are not finite")
    if out.motion_parts is not None and out.text_parts is not None and out.named is not None:
        shapes = out.motion_parts.shape[1:], out.text_parts.shape[1:]
        if shapes[0] != shapes[1] or out.named.shape != out.text_parts.shape[:2]:
            raise ValueError("its parts have vectors of different sizes")
