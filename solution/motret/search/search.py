"""Free-text search: ranks training motions, test candidates, a folder of motions, or an index."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret.config.scripts import IndexCheckConfig, SearchConfig
from motret.data import dataset, feature_store, folds
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.ensemble.inference import Encoder
from motret.errors import DataError, RunError
from motret.evaluation.z_score import ZScore
from motret.models.dual_encoder import DualEncoder
from motret.runs import oof
from motret.runs.run import Run, with_output_dir
from motret.runs.selection import check_run_matches
from motret.search import index_files, motion_folder
from motret.search.approximate import ApproximateSearch
from motret.search.exact import search_exactly
from motret.search.index_files import Index
from motret.search.run_models import (
    RunModels,
    choose_search_run,
    finished_models,
    model_scales,
    parse_fold,
)


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
    gallery, note: in words; config: of the features; searched: motions that were ranked, of an
    index more than the N.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    similarity: np.ndarray
    model: str
    gallery: str
    note: str
    config: FeatureConfig
    searched: int


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
    folder = Path(config.gallery)
    if config.gallery not in ("train", "test") and index_files.is_index(folder):
        return _search_index(index_files.open_index(folder), config)
    run = choose_search_run(config.run, config.out_dir, config.allow_towers)
    run = with_output_dir(run, config.data.work_dir)
    encoder = Encoder(config.machine, config.data.work_dir, [[config.text]])
    model = SearchModel(run, encoder, config.text)
    if config.gallery == "train":
        return run, _search_training(model, config)
    gallery = (
        _test_gallery(run, config) if config.gallery == "test" else _folder_gallery(run, config)
    )
    return run, _mean_over_models(model, gallery)


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
        len(data_idx),
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
        fix = "--gallery takes train, test, a folder of .npy motions or an index"
        raise DataError(folder, "no such folder", fix)
    names = motion_folder.motion_names(folder)
    files = [folder / f"{name}.npy" for name in names]
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
    models = finished_models(run)
    similarities = []
    for fold, scale in zip(models, model_scales(run, models), strict=True):
        fold_model = model.load_model(fold)
        cosines = model.embed_motions(fold_model, store) @ model.embed_text(fold_model)
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
        len(store.ids),
    )


def _search_index(index: Index, config: SearchConfig) -> tuple[Run, SearchResult]:
    """Ranks the motions of an index by the models that embedded them; only the best are returned.

    RunError where the run's models are not those of the index.
    """
    made_by = index.manifest.model
    run = choose_search_run(config.run or made_by.run, config.out_dir, config.allow_towers)
    run = with_output_dir(run, config.data.work_dir)
    if not index.rows:
        fix = f"go on with it: `python solution/index.py build {index.folder}`"
        raise DataError(index.folder, "an index without motions", fix)
    models = open_index_models(index, run, config, [config.text])
    queries = models.embed_texts()
    jobs, note = config.machine.jobs, ""
    if index.manifest.approximate is None or config.exact:
        ranking = search_exactly(index, queries, config.top, jobs)
    else:
        ranking = ApproximateSearch(index).search(queries, config.top, config.probes, jobs)
        note = "Most of the best are among them, not surely all: --exact compares every motion."
    is_motion = np.isfinite(ranking.scores[0])
    rows, scores = ranking.rows[0][is_motion], ranking.scores[0][is_motion]
    ids, paths = index.names(rows)
    return run, SearchResult(
        tuple(ids),
        tuple(paths),
        ((),) * len(ids),
        scores + models.offset,
        _describe_models(run, models.folds),
        f"{index.rows} motions of the index {index.folder}",
        note,
        run.features,
        index.rows,
    )


def open_index_models(
    index: Index, run: Run, config: SearchConfig | IndexCheckConfig, captions: Sequence[str]
) -> RunModels:
    """The models of a run that embedded an index. RunError where they are not the same.

    captions: that will be embedded.
    """
    made_by = index.manifest.model
    fix = f"give --run {made_by.run} as it was then, or build an index with this one"
    if run.name != made_by.run:
        raise RunError(index.folder, f"its motions were embedded by {made_by}", fix)
    folds = [parse_fold(run, name) for name in made_by.folds]
    models = RunModels(run, folds, config.machine, config.data, captions)
    if reason := made_by.difference(models.identity()):
        raise RunError(index.folder, f"its motions were embedded by {reason}", fix)
    return models


def _describe_models(run: Run, models: Sequence[int | None]) -> str:
    return f"{run.name}, {len(models)} model{'s' if len(models) != 1 else ''}"
