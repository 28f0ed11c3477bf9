"""Motions that a free text is held against: the training motions, all candidates of the test, or a folder of files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret import dataset, folds, rank, runs, store
from motret.config import SearchSettings
from motret.encode import Encoder
from motret.faults import DataFault, RunFault
from motret.features import FeatureSettings
from motret.model import DualEncoder
from motret.rank import Scale
from motret.runs import Run
from motret.store import Store


@dataclass(frozen=True)
class Found:
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
    settings: FeatureSettings


@dataclass(frozen=True)
class Asked:
    """The models of a run, ready to be asked about one text."""

    run: Run
    encoder: Encoder
    said: str

    def model(self, part: int | None) -> DualEncoder:
        """The model of one fold, or of all motions (None)."""
        return self.encoder.model(self.run, part)

    def text(self, model: DualEncoder) -> np.ndarray:
        """(d,) unit vector of the text."""
        return self.encoder.captions(model, self.run, [self.said], self.encoder.bank(self.run))[0]

    def motions(self, model: DualEncoder, packed: Store) -> np.ndarray:
        """(N, d) unit vectors of all motions of a store."""
        return self.encoder.motions(model, self.run, packed)


def search(settings: SearchSettings) -> tuple[Run, Found]:
    """Ranks the gallery that the settings name by their text."""
    run = runs.with_output(choose_run(settings), settings.data.work_dir)
    asked = Asked(run, Encoder(settings.machine, settings.data.work_dir, [[settings.text]]), settings.text)
    if settings.gallery == "train":
        return run, _in_training(asked, settings)
    return run, _in_test(asked, settings) if settings.gallery == "test" else _in_folder(asked, settings)


def choose_run(settings: SearchSettings) -> Run:
    """The run that is named, or the one of which a fold finished last. RunFault where it has no finished fold."""
    if settings.run is not None:
        run = runs.open_named(settings.run, settings.out_dir)
        if not run.finished():
            raise RunFault(run.folder, "has no finished fold", "train it again with --resume auto")
        return run
    finished = [run for run in runs.find_runs(settings.out_dir) if run.finished()]
    if not finished:
        raise RunFault(
            settings.out_dir, "holds no run with a finished fold", "train one: `python solution/train.py holistic`; or name one with --run"
        )
    return max(finished, key=lambda run: max((run.part(fold) / "oof.npz").stat().st_mtime_ns for fold in run.finished()))


def _in_training(asked: Asked, settings: SearchSettings) -> Found:
    """Each training motion as the model sees it that was not trained on it: by the out-of-fold embeddings, which are there already."""
    data = dataset.load_training(settings.data, settings.machine.jobs)
    rank.must_belong(asked.run, data, folds.read(data, settings.data.folds_dir), "--run")
    rows, similarities = [], []
    for fold in asked.run.finished():
        out = runs.load_out_of_fold(asked.run, fold)
        similarities.append(Scale.of(out.similarity())(out.motion @ asked.text(asked.model(fold))))
        rows.append(out.row)
    row = np.concatenate(rows)
    training = data.training
    missing = len(training.ids) - len(row)
    left_out = f" {missing} motions of folds that are not finished are left out." if missing else ""
    return Found(
        tuple(training.ids[at] for at in row),
        tuple(training.paths[at] for at in row),
        tuple(training.captions[at] for at in row),
        np.concatenate(similarities),
        _told(asked.run, asked.run.finished()),
        f"{len(row)} training motions",
        f"Each motion is ranked by the one model that was not trained on it.{left_out}",
        data.store.settings,
    )


def _in_test(asked: Asked, settings: SearchSettings) -> Found:
    folder = settings.data.data_dir / "test"
    test = dataset.load_test(folder, asked.run.features, settings.data, settings.machine.jobs)
    path_of = {
        int(row): path for query, rows in zip(test.queries, test.rows, strict=True) for row, path in zip(rows, query.paths, strict=True)
    }  # row -1, of candidates that cannot be used, is asked for by nobody
    paths = tuple(path_of[row] for row in range(len(test.store.ids)))
    return _found(asked, test.store, paths, f"{len(paths)} candidates of {folder}", "")


def _in_folder(asked: Asked, settings: SearchSettings) -> Found:
    folder = Path(settings.gallery)
    if not folder.is_dir():
        raise DataFault(folder, "no such folder", "--gallery takes train, test or a folder of .npy motions")
    files = sorted(path for path in folder.iterdir() if path.suffix == ".npy" and path.name[0] != ".")
    if not files:
        raise DataFault(folder, "holds no .npy file", "give the folder that the motions lie in")
    names = [path.stem for path in files]
    packed, _ = store.pack(
        names,
        files,
        asked.run.features,
        settings.data.work_dir,
        min_frames=settings.data.min_frames,
        strict=settings.data.strict,
        jobs=settings.machine.jobs,
    )
    paths = dict(zip(names, files, strict=True))
    first = f"{packed.skipped[0].file}: {packed.skipped[0].wrong}" if packed.skipped else ""
    note = f"Left out: {len(packed.skipped)}, the first {first}." if packed.skipped else ""
    return _found(asked, packed, tuple(paths[name] for name in packed.ids), f"{len(packed.ids)} motions of {folder}", note)


def _found(asked: Asked, packed: Store, paths: tuple[Path, ...], about: str, note: str) -> Found:
    """Motions that no model was trained on: the mean over all of the run's models, each on the scale of its own held-out gallery."""
    run = asked.run
    dataset.same_persons(packed, run.persons, paths[0].parent)
    scales = {fold: Scale.of(runs.load_out_of_fold(run, fold).similarity()) for fold in run.finished()}
    shared = Scale.mean_of(list(scales.values()))
    parts: list[int | None] = [*run.finished(), *([None] if run.full() else [])]
    similarities = []
    for part in parts:
        model = asked.model(part)
        similarities.append(scales.get(part, shared)(asked.motions(model, packed) @ asked.text(model)))
    return Found(packed.ids, paths, ((),) * len(paths), np.mean(similarities, axis=0), _told(run, parts), about, note, packed.settings)


def _told(run: Run, parts: Sequence[int | None]) -> str:
    return f"{run.name}, {len(parts)} model{'s' if len(parts) != 1 else ''}"
