"""Motions that a free text is held against: the training motions, all candidates of the test, or a folder of files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret.config.scripts import SearchConfig
from motret.data import dataset, feature_store, folds
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.ensemble.inference import Encoder
from motret.errors import DataError, RunError
from motret.evaluation.z_score import ZScore
from motret.models.dual_encoder import DualEncoder
from motret.runs import oof
from motret.runs.run import Run, list_runs, open_named_run, with_output_dir
from motret.runs.selection import check_run_matches


@dataclass(frozen=True)
class SearchResult:
    """How well each motion of a gallery fits a text.

    similarity: (N,) on the models' common scale; captions: of each motion, none where they are not known; model, about, note: in
    words, what was asked, of what, and what to mind; settings: of the features.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    similarity: np.ndarray
    model: str
    about: str
    note: str
    config: FeatureConfig


@dataclass(frozen=True)
class SearchModel:
    """The models of a run, ready to be asked about one text."""

    run: Run
    encoder: Encoder
    said: str

    def model(self, part: int | None) -> DualEncoder:
        """The model of one fold, or of all motions (None)."""
        return self.encoder.load_model(self.run, part)

    def text(self, model: DualEncoder) -> np.ndarray:
        """(d,) unit vector of the text."""
        return self.encoder.embed_captions(model, self.run, [self.said], self.encoder.caption_bank(self.run))[0]

    def motions(self, model: DualEncoder, packed: FeatureStore) -> np.ndarray:
        """(N, d) unit vectors of all motions of a store."""
        return self.encoder.embed_motions(model, self.run, packed)


def search(config: SearchConfig) -> tuple[Run, SearchResult]:
    """Ranks the gallery that the settings name by their text."""
    run = with_output_dir(choose_search_run(config), config.data.work_dir)
    asked = SearchModel(run, Encoder(config.machine, config.data.work_dir, [[config.text]]), config.text)
    if config.gallery == "train":
        return run, _search_training(asked, config)
    return run, _search_test(asked, config) if config.gallery == "test" else _search_folder(asked, config)


def choose_search_run(config: SearchConfig) -> Run:
    """The run that is named, or the one of which a fold finished last. RunError where it has no finished fold."""
    if config.run is not None:
        run = open_named_run(config.run, config.out_dir)
        if not run.finished_folds():
            raise RunError(run.folder, "has no finished fold", "train it again with --resume auto")
        return run
    finished = [run for run in list_runs(config.out_dir) if run.finished_folds()]
    if not finished:
        raise RunError(
            config.out_dir, "holds no run with a finished fold", "train one: `python solution/train.py holistic`; or name one with --run"
        )
    return max(finished, key=lambda run: max((run.fold_dir(fold) / "oof.npz").stat().st_mtime_ns for fold in run.finished_folds()))


def _search_training(asked: SearchModel, config: SearchConfig) -> SearchResult:
    """Each training motion as the model sees it that was not trained on it: by the out-of-fold embeddings, which are there already."""
    data = dataset.load_training(config.data, config.machine.jobs)
    check_run_matches(asked.run, data, folds.read_folds(data, config.data.folds_dir), "--run")
    rows, similarities = [], []
    for fold in asked.run.finished_folds():
        out = oof.load_out_of_fold(asked.run, fold)
        similarities.append(ZScore.of(out.similarity())(out.motion @ asked.text(asked.model(fold))))
        rows.append(out.data_idx)
    row = np.concatenate(rows)
    training = data.training
    missing = len(training.ids) - len(row)
    left_out = f" {missing} motions of folds that are not finished are left out." if missing else ""
    return SearchResult(
        tuple(training.ids[at] for at in row),
        tuple(training.paths[at] for at in row),
        tuple(training.captions[at] for at in row),
        np.concatenate(similarities),
        _models_note(asked.run, asked.run.finished_folds()),
        f"{len(row)} training motions",
        f"Each motion is ranked by the one model that was not trained on it.{left_out}",
        data.store.config,
    )


def _search_test(asked: SearchModel, config: SearchConfig) -> SearchResult:
    folder = config.data.data_dir / "test"
    test = dataset.load_test(folder, asked.run.features, config.data, config.machine.jobs)
    path_of = {
        int(row): path
        for query, rows in zip(test.queries, test.candidate_idx, strict=True)
        for row, path in zip(rows, query.paths, strict=True)
    }  # row -1, of candidates that cannot be used, is asked for by nobody
    paths = tuple(path_of[row] for row in range(len(test.store.ids)))
    return _mean_over_models(asked, test.store, paths, f"{len(paths)} candidates of {folder}", "")


def _search_folder(asked: SearchModel, config: SearchConfig) -> SearchResult:
    folder = Path(config.gallery)
    if not folder.is_dir():
        raise DataError(folder, "no such folder", "--gallery takes train, test or a folder of .npy motions")
    files = sorted(path for path in folder.iterdir() if path.suffix == ".npy" and path.name[0] != ".")
    if not files:
        raise DataError(folder, "holds no .npy file", "give the folder that the motions lie in")
    names = [path.stem for path in files]
    packed, _ = feature_store.build_feature_cache(
        names,
        files,
        asked.run.features,
        config.data,
        jobs=config.machine.jobs,
    )
    paths = dict(zip(names, files, strict=True))
    first = f"{packed.skipped[0].file}: {packed.skipped[0].problem}" if packed.skipped else ""
    note = f"Left out: {len(packed.skipped)}, the first {first}." if packed.skipped else ""
    return _mean_over_models(asked, packed, tuple(paths[name] for name in packed.ids), f"{len(packed.ids)} motions of {folder}", note)


def _mean_over_models(asked: SearchModel, packed: FeatureStore, paths: tuple[Path, ...], about: str, note: str) -> SearchResult:
    """Motions that no model was trained on: the mean over all of the run's models, each on the scale of its own held-out gallery."""
    run = asked.run
    dataset.check_persons(packed, run.persons, paths[0].parent)
    scales = {fold: ZScore.of(oof.load_out_of_fold(run, fold).similarity()) for fold in run.finished_folds()}
    shared = ZScore.mean_of(list(scales.values()))
    parts: list[int | None] = [*run.finished_folds(), *([None] if run.has_full_model() else [])]
    similarities = []
    for part in parts:
        model = asked.model(part)
        similarities.append(scales.get(part, shared)(asked.motions(model, packed) @ asked.text(model)))
    return SearchResult(
        packed.ids, paths, ((),) * len(paths), np.mean(similarities, axis=0), _models_note(run, parts), about, note, packed.config
    )


def _models_note(run: Run, parts: Sequence[int | None]) -> str:
    return f"{run.name}, {len(parts)} model{'s' if len(parts) != 1 else ''}"
