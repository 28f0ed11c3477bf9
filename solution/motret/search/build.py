"""Building an index: a run embeds the motions of a folder, a shard at a time.

What is in the index already is left as it is, so the same call goes on where another was killed.
Features are packed for one shard only, in a folder that is removed after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret.config.base import DataConfig
from motret.data import dataset, feature_store
from motret.errors import DataError
from motret.search import motion_folder
from motret.search.index_files import SHARD_ROWS, IndexWriter
from motret.search.run_models import RunModels
from motret.utils import files, progress


@dataclass(frozen=True)
class Added:
    """What an index got: motions added, those that were in it before, and files left out."""

    motions: int
    before: int
    skipped: tuple[str, ...]


def add_folder(
    writer: IndexWriter, models: RunModels, folder: Path, data: DataConfig, jobs: int = -1
) -> Added:
    """Adds the motions of a folder that the index does not hold, by the names of their files.

    DataError where no file can be used, and with `data.strict` where one cannot.
    """
    names = motion_folder.motion_names(folder)
    todo = [names[position] for position in writer.missing(names)]
    count, skipped, error = 0, [], None
    with progress.progress_bar(total=len(todo), desc="embedding", unit="motion") as bar:
        for start in range(0, len(todo), SHARD_ROWS):
            chunk = todo[start : start + SHARD_ROWS]
            try:
                ids, vectors, problems = _embed(models, folder, chunk, data, jobs)
            except DataError as cause:
                if data.strict:
                    raise
                error, ids, problems = cause, (), [str(cause)]
            if ids:
                writer.append(ids, [f"{name}.npy" for name in ids], folder, vectors)
            count += len(ids)
            skipped += problems
            bar.update(len(chunk))
    if error is not None and not writer.manifest.rows:
        raise error
    return Added(count, len(names) - len(todo), tuple(skipped))


def _embed(
    models: RunModels, folder: Path, names: Sequence[str], data: DataConfig, jobs: int
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """Ids and vectors (n, d) of the usable ones of some motions, and what the others lack."""
    paths = [folder / f"{name}.npy" for name in names]
    with files.new_dir(data.work_dir, "index", data.work_dir) as tmp_dir:
        temporary = replace(data, work_dir=tmp_dir)
        features = models.run.features
        store, _ = feature_store.build_feature_cache(names, paths, features, temporary, jobs=jobs)
        dataset.check_persons(store, models.run.persons, folder)
        vectors = models.embed_motions(store)
        return store.ids, vectors, [f"{file.file}: {file.problem}" for file in store.skipped]
