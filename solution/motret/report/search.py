"""Free-text search: ranks the training motions, all test candidates or a folder of motions."""

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
from motret.runs.run import Run, list_runs, open_named_run, training_command, with_output_dir
from motret.runs.selection import check_run_matches


@dataclass(frozen=True)
class Gallery:
    """Motions to search: their features, their files in the same order, and what they are."""

    store: FeatureStore
    paths: tuple[Path, ...]
    description: str
    note: str = ""


@dataclass(frozen=True)
class SearchResult:
    """How well each of N motions fits a text.

    similarity: (N,) z-scored; captions: of each motion, empty where they are not known; model,
    gallery, note: in words; config: of the features.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    similarity: np.ndarray
    model: str
    gallery: str
    note: str
    config: FeatureConfig


@dataclass(frozen=True)
class SearchModel:
    """The models of a run and the text that is searched for."""

    run: Run
    encoder: Encoder
    text: str

    def load_model(self, fold: int | None) -> DualEncoder:
        """The model of one fold, or of all data (None)."""
        return self.encoder.load_model(self.run, fold)

    def embed_text(self, model: DualEncoder) -> np.ndarray:
        """(d,) unit vector of the text."""
        bank = self.encoder.caption_bank(self.run)
        embeddings = self.encoder.embed_captions(model, self.run, [self.text], bank)
        return np.asarray(embeddings[0])

    def embed_motions(self, model: DualEncoder, store: FeatureStore) -> np.ndarray:
        """(N, d) unit vectors of all motions of a store."""
        return self.encoder.embed_motions(model, self.run, store)


def search(config: SearchConfig) -> tuple[Run, SearchResult]:
    """Ranks the motions of `config.gallery` by `config.text`; returns the run that did it, too."""
    run = with_output_dir(choose_search_run(config), config.data.work_dir)
    encoder = Encoder(config.machine, config.data.work_dir, [[config.text]])
    model = SearchModel(run, encoder, config.text)
    if config.gallery == "train":
        return run, _search_training(model, config)
    gallery = (
        _test_gallery(run, config) if config.gallery == "test" else _folder_gallery(run, config)
    )
    return run, _mean_over_models(model, gallery)


def choose_search_run(config: SearchConfig) -> Run:
    """The run of --run, or the one with the fold that finished last.

    RunError where it has no finished fold.
    """
    if config.run is not None:
        run = open_named_run(config.run, config.out_dir, config.allow_towers)
        if not run.finished_folds():
            fix = f"finish it: {training_command(run.fold_dir(0))}"
            raise RunError(run.folder, "has no finished fold", fix)
        return run
    runs = list_runs(config.out_dir, config.allow_towers)
    finished = [run for run in runs if run.finished_folds()]
    if not finished:
        fix = "train one: `python solution/train.py holistic`; or name one with --run"
        raise RunError(config.out_dir, "holds no run with a finished fold", fix)

    def finish_time(run: Run) -> int:
        files = [run.fold_dir(fold) / "oof.npz" for fold in run.finished_folds()]
        return max(path.stat().st_mtime_ns for path in files)

    return max(finished, key=finish_time)


def _search_training(model: SearchModel, config: SearchConfig) -> SearchResult:
    """Ranks each training motion by the model that was not trained on it.

    The out-of-fold embeddings are on disk already.
    """
    run = model.run
    data = dataset.load_training(config.data, config.machine.jobs)
    check_run_matches(run, data, folds.read_folds(data, config.data.folds_dir), "--run")
    fold_idx, similarities = [], []
    for fold in run.finished_folds():
        out = oof.load_out_of_fold(run, fold)
        text = model.embed_text(model.load_model(fold))
        similarities.append(ZScore.of(out.similarity())(out.motion @ text))
        fold_idx.append(out.data_idx)
    data_idx = np.concatenate(fold_idx)
    training = data.training
    note = "Each motion is ranked by the one model that was not trained on it."
    if missing := len(training.ids) - len(data_idx):
        note += f" {missing} motions of unfinished folds are left out."
    return SearchResult(
        tuple(training.ids[index] for index in data_idx),
        tuple(training.paths[index] for index in data_idx),
        tuple(training.captions[index] for index in data_idx),
        np.concatenate(similarities),
        _describe_models(run, run.finished_folds()),
        f"{len(data_idx)} training motions",
        note,
        data.store.config,
    )


def _test_gallery(run: Run, config: SearchConfig) -> Gallery:
    """All distinct candidates of the test folder."""
    folder = config.data.data_dir / "test"
    test = dataset.load_test(folder, run.features, config.data, config.machine.jobs)
    path_of = {
        int(index): path
        for query, candidates in zip(test.queries, test.candidate_idx, strict=True)
        for index, path in zip(candidates, query.paths, strict=True)
    }  # index -1 stands for candidates that cannot be used
    paths = tuple(path_of[index] for index in range(len(test.store.ids)))
    return Gallery(test.store, paths, f"{len(paths)} candidates of {folder}")


def _folder_gallery(run: Run, config: SearchConfig) -> Gallery:
    """The .npy files of a folder. DataError where there is none."""
    folder = Path(config.gallery)
    if not folder.is_dir():
        fix = "--gallery takes train, test or a folder of .npy motions"
        raise DataError(folder, "no such folder", fix)
    files = sorted(
        path for path in folder.iterdir() if path.suffix == ".npy" and path.name[0] != "."
    )
    if not files:
        raise DataError(folder, "holds no .npy file", "give the folder that the motions lie in")
    names = [path.stem for path in files]
    store, _ = feature_store.build_feature_cache(
        names, files, run.features, config.data, jobs=config.machine.jobs
    )
    path_of = dict(zip(names, files, strict=True))
    note = ""
    if store.skipped:
        example = store.skipped[0]
        count = f"{len(store.skipped)} file{'s' if len(store.skipped) > 1 else ''}"
        note = f"Left out: {count}, such as {example.file}: {example.problem}."
    paths = tuple(path_of[name] for name in store.ids)
    return Gallery(store, paths, f"{len(store.ids)} motions of {folder}", note)


def _mean_over_models(model: SearchModel, gallery: Gallery) -> SearchResult:
    """Ranks motions that no model was trained on by the mean over all models of the run.

    Each model's similarities are z-scored by its own held-out gallery.
    """
    run, store = model.run, gallery.store
    dataset.check_persons(store, run.persons, gallery.paths[0].parent)
    scales = {
        fold: ZScore.of(oof.load_out_of_fold(run, fold).similarity())
        for fold in run.finished_folds()
    }
    mean_scale = ZScore.mean_of(list(scales.values()))
    models: list[int | None] = [*run.finished_folds(), *([None] if run.has_full_model() else [])]
    similarities = []
    for fold in models:
        fold_model = model.load_model(fold)
        cosines = model.embed_motions(fold_model, store) @ model.embed_text(fold_model)
        scale = mean_scale if fold is None else scales[fold]
        similarities.append(scale(cosines))
    return SearchResult(
        store.ids,
        gallery.paths,
        ((),) * len(gallery.paths),
        np.mean(similarities, axis=0),
        _describe_models(run, models),
        gallery.description,
        gallery.note,
        store.config,
    )


def _describe_models(run: Run, models: Sequence[int | None]) -> str:
    return f"{run.name}, {len(models)} model{'s' if len(models) != 1 else ''}"
