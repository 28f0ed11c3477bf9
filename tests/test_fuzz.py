"""5,000 mutated files: each is read, or refused in one line that names it."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fuzz

CASES = 5000
NAMES = (
    "motion", "motion header", "repaired motion", "captions", "train.txt", "groups.csv",
    "caption sets", "GAR JSON", "sample marker", "skeleton.json", "meta.json", "gar_train.json",
    "body", "part", "statistic", "query text", "gt.csv", "submission.csv", "log.csv",
    "submission.json", "args.json", "oof.npz", "metrics.csv", "last.pt", "best checkpoint",
    "wise.json", "folds.csv", "folds.json", "towers.json", "best.json", "published weights",
    "CLIP archive", "open_clip_config.json", "member .npz", "member .csv", "saved similarities",
    "store.json", "index.npz", "features.npy", "key of a store", "view", "embedded captions",
    "described parts",
)  # fmt: skip


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="motret-fuzz-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def readers(root: Path) -> dict[str, fuzz.Reader]:
    return {reader.name: reader for reader in fuzz.make_readers(root)}


def test_every_reader_is_tried(readers: dict[str, fuzz.Reader]) -> None:
    assert tuple(readers) == NAMES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_file_is_read_or_refused(
    readers: dict[str, fuzz.Reader], root: Path, name: str
) -> None:
    logging.disable(logging.WARNING)
    try:
        share = range(-(-CASES // len(NAMES)))
        result = fuzz.run_cases(readers[name], share, seed=0, root=root)
    finally:
        logging.disable(logging.NOTSET)
    assert result.fallen == [] and result.cases == len(share)
