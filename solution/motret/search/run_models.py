"""The models of one run that search: which run, its folds, and vectors of texts and motions."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from motret.config.base import DataConfig, MachineConfig
from motret.config.training import TrainConfig
from motret.data.feature_store import FeatureStore
from motret.ensemble.inference import Encoder
from motret.errors import ConfigError, RunError
from motret.evaluation.z_score import ZScore
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints, oof, provenance
from motret.runs.run import Run, list_runs, open_named_run, training_command
from motret.search.index_files import ModelIdentity
from motret.utils import reading


def choose_search_run(name: str | None, out_dir: Path, allow_towers: Sequence[str]) -> Run:
    """The run of this name, or with None the one with the fold that finished last.

    RunError where it has no finished fold.
    """
    if name is not None:
        run = open_named_run(name, out_dir, allow_towers)
        if not run.finished_folds():
            fix = f"finish it: {training_command(run.fold_dir(0))}"
            raise RunError(run.folder, "has no finished fold", fix)
        return run
    runs = list_runs(out_dir, allow_towers)
    finished = [run for run in runs if run.finished_folds()]
    if not finished:
        fix = "train one: `python solution/train.py holistic`; or name one with --run"
        raise RunError(out_dir, "holds no run with a finished fold", fix)

    def finish_time(run: Run) -> int:
        files = [run.fold_dir(fold) / "oof.npz" for fold in run.finished_folds()]
        return max(path.stat().st_mtime_ns for path in files)

    return max(finished, key=finish_time)


def finished_models(run: Run) -> list[int | None]:
    """Its finished folds, and None where the model of all data is finished."""
    return [*run.finished_folds(), *([None] if run.has_full_model() else [])]


def parse_fold(run: Run, name: str) -> int | None:
    """The fold that a flag names by its number or as `full`. ConfigError where it is not
    finished."""
    names = {run.fold_dir(fold).name.removeprefix("fold"): fold for fold in finished_models(run)}
    if name.removeprefix("fold") not in names:
        problem = f"{run.name} has no finished model {name!r}"
        raise ConfigError("--models", problem, f"give some of {' '.join(names)}")
    return names[name.removeprefix("fold")]


def model_scales(run: Run, folds: Sequence[int | None]) -> list[ZScore]:
    """The scale of each model's similarities: that of its own held-out gallery, and the mean over
    the finished folds for the model of all data."""
    scales = {
        fold: ZScore.of(oof.load_out_of_fold(run, fold).similarity())
        for fold in run.finished_folds()
        if fold in folds or None in folds
    }
    mean = ZScore.mean_of(list(scales.values()))
    return [mean if fold is None else scales[fold] for fold in folds]


class RunModels:
    """Some models of a run as one: its vectors are theirs, end to end.

    The product of a text's vector with a motion's is the mean over the models of their z-scored
    similarities, but for `offset`. captions: that will be embedded.
    """

    def __init__(
        self,
        run: Run,
        folds: Sequence[int | None],
        machine: MachineConfig,
        data: DataConfig,
        captions: Sequence[str] = (),
    ):
        self.run, self.folds, self.captions = run, tuple(folds), tuple(captions)
        self.encoder = Encoder(machine, data.work_dir, [self.captions])
        self.models: list[DualEncoder] = [self.encoder.load_model(run, fold) for fold in self.folds]
        self.scales = model_scales(run, self.folds)

    @property
    def dim(self) -> int:
        """Size of the vectors."""
        return sum(model.embed_dim for model in self.models)

    @property
    def offset(self) -> float:
        """What is added to the products."""
        return -float(np.mean([scale.mean / scale.deviation for scale in self.scales]))

    def identity(self) -> ModelIdentity:
        """Changes with the weights of a model, and with all that they were made from."""
        dirs = [self.run.fold_dir(fold) for fold in self.folds]
        config: TrainConfig = self.run.config
        inputs = provenance.input_digests(config, self.encoder.text_tower(self.run))
        return ModelIdentity(
            self.run.name,
            tuple(folder.name for folder in dirs),
            tuple(_file_digest(checkpoints.best_checkpoint(folder)) for folder in dirs),
            tuple(f"{name} {digest}" for name, digest in inputs.items()),
        )

    def embed_texts(self) -> np.ndarray:
        """(C, d) float32 vectors of the captions, which products are taken with."""
        bank = self.encoder.caption_bank(self.run)
        weighted = [
            self.encoder.embed_captions(model, self.run, self.captions, bank)
            / (len(self.models) * scale.deviation)
            for model, scale in zip(self.models, self.scales, strict=True)
        ]
        return np.concatenate(weighted, axis=1).astype(np.float32)

    def embed_motions(self, store: FeatureStore) -> np.ndarray:
        """(N, d) float32 vectors of the motions of a store, of unit length for each model."""
        embeddings = [self.encoder.embed_motions(model, self.run, store) for model in self.models]
        return np.concatenate(embeddings, axis=1)


def _file_digest(path: Path) -> str:
    with reading.open_file(path, reading.MAX_TENSOR_BYTES, RunError) as (stream, _):
        return hashlib.file_digest(cast(Any, stream), "blake2b").hexdigest()[:16]
