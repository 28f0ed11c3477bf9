"""Reads the queries of data/test, or of any folder of its form, and checks them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motret.errors import DataError, warn
from motret.formats.challenge import NO_DATA_FIX, POOL_SIZE, TOP_K
from motret.formats.text_files import id_order, preview, query_key, read_captions


@dataclass(frozen=True)
class Query:
    """One folder of data/test: captions and candidates, these by ascending k of motion_<k>.npy."""

    id: str
    """The folder's name, as it is."""
    captions: tuple[str, ...]
    candidates: tuple[int, ...]
    """The numbers k."""
    paths: tuple[Path, ...]
    """The motion file of each candidate."""


def read_queries(folder: Path) -> tuple[Query, ...]:
    """The queries of a folder: numbered ones by number, then named ones. Motions are not opened.

    Any problem of a query is a DataError. Warnings, one of each kind: pools of other than 32 and of
    fewer than 10 candidates, gaps in their numbering, folders that are no queries.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder", NO_DATA_FIX)
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    queries, ignored = [], []
    for path in sorted(folders, key=lambda path: id_order(path.name)):
        if query := _read_query(path):
            queries.append(query)
        else:
            ignored.append(path.name)
    if not queries:
        fix = "each query is a folder with text.txt and motion_<k>.npy"
        raise DataError(folder, "no query folder in it", fix)
    _check_ids(folder, queries)
    if ignored:
        warn(folder, f"folders without text and motions: {preview(ignored)}", "ignored")
    _warn_of_unusual_pools(folder, queries)
    return tuple(queries)


def _read_query(folder: Path) -> Query | None:
    """One query folder; None where it holds neither a text nor a motion."""
    texts = [path for name in ("text.txt", "query.txt") if (path := folder / name).exists()]
    candidates = _list_candidates(folder)
    if not texts and not candidates:
        return None
    if not texts:
        raise DataError(folder, "no text.txt", "each query folder needs its text")
    if not candidates:
        raise DataError(folder, "no motion_<k>.npy", "each query folder needs its candidates")
    captions = read_captions(texts[0])
    if len(texts) > 1 and read_captions(texts[1]) != captions:
        raise DataError(folder, "text.txt and query.txt differ", "keep the right one")
    return Query(folder.name, captions, tuple(candidates), tuple(candidates.values()))


def _list_candidates(folder: Path) -> dict[int, Path]:
    """The motion file of each candidate, by its number, in ascending order."""
    candidates: dict[int, Path] = {}
    for path in sorted(folder.glob("motion_*.npy")):
        match = re.fullmatch(r"motion_0*([1-9][0-9]{0,8})", path.stem)
        if not match:
            fix = "name candidates motion_<k>.npy, k = 1, 2, ..."
            raise DataError(path, "not a candidate's name", fix)
        number = int(match[1])
        if number in candidates:
            problem = f"the same candidate {number} as {candidates[number].name}"
            raise DataError(path, problem, "remove one of the two files")
        candidates[number] = path
    return dict(sorted(candidates.items()))


def _check_ids(folder: Path, queries: Sequence[Query]) -> None:
    """DataError where two folders are the same query: "1" and "01"."""
    first_ids: dict[str, str] = {}
    for query in queries:
        first_id = first_ids.setdefault(query_key(query.id), query.id)
        if first_id != query.id:
            problem = f"the same query id as {first_id}"
            raise DataError(folder / query.id, problem, "remove one of the two folders")


def _warn_of_unusual_pools(folder: Path, queries: Sequence[Query]) -> None:
    """One warning for each kind of unusual candidate numbering."""
    sizes = {query.id: len(query.candidates) for query in queries}
    unusual = [name for name, size in sizes.items() if size != POOL_SIZE]
    small = [name for name, size in sizes.items() if size < TOP_K]
    gaps = [query.id for query in queries if query.candidates[-1] != len(query.candidates)]
    for names, kind, fix in (
        (unusual, f"other than {POOL_SIZE} candidates", "ranked as they are"),
        (
            small,
            f"fewer than {TOP_K} candidates",
            f"they can be ranked, but submission.csv needs {TOP_K}",
        ),
        (gaps, "gaps in the numbers of motion_<k>.npy", "ranked by the numbers they have"),
    ):
        if names:
            examples = preview(f"{name} ({sizes[name]} candidates)" for name in names)
            warn(folder, f"{len(names)} of {len(queries)} queries have {kind}: {examples}", fix)
