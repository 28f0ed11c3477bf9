"""Reads the queries of data/test, or of any folder of its form, and checks them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motret.errors import DataError, warn
from motret.formats.challenge import POOL_SIZE, TOP_K, ReadRules, check_folder, check_id
from motret.formats.text_files import id_order, is_number, preview, query_key, read_captions
from motret.utils import reading


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


def read_queries(folder: Path, follow_links: bool = False) -> tuple[Query, ...]:
    """The queries of a folder: numbered ones by number, then named ones. Motions are not opened.

    Any problem of a query is a DataError. Warnings, one of each kind: pools of other than 32 and of
    fewer than 10 candidates, gaps in their numbering, folders that are no queries, named queries
    among numbered ones. follow_links: reads texts through links that lead out of the folder.
    """
    check_folder(folder)
    folders = [path for path in reading.list_folder(folder) if _is_visible_folder(path)]
    home = ReadRules(follow_links=follow_links).home(folder)
    queries, ignored = [], []
    for path in sorted(folders, key=lambda path: id_order(path.name)):
        if query := _read_query(path, home):
            queries.append(query)
        else:
            ignored.append(path.name)
    if not queries:
        fix = "each query is a folder with text.txt and motion_<k>.npy"
        raise DataError(folder, "no query folder in it", fix)
    _check_ids(folder, queries)
    if ignored:
        warn(folder, f"folders without text and motions: {preview(ignored)}", "ignored")
    _warn_of_names(folder, [query.id for query in queries])
    _warn_of_unusual_pools(folder, queries)
    return tuple(queries)


def _is_visible_folder(path: Path) -> bool:
    """Whether a path is a folder that may be a query; `.ipynb_checkpoints` is none, `..a` may."""
    is_hidden = path.name[0] == "." and not path.name.startswith("..")
    return not is_hidden and reading.is_folder(path)


def _read_query(folder: Path, home: Path | None) -> Query | None:
    """One query folder; None where it holds neither a text nor a motion.

    home: the folder that a link of its text must not lead out of.
    """
    names = ("text.txt", "query.txt")
    texts = [path for name in names if reading.is_file(path := folder / name)]
    candidates = _list_candidates(folder)
    if not texts and not candidates:
        return None
    check_id(folder.name, folder)
    if not texts:
        raise DataError(folder, "no text.txt", "each query folder needs its text")
    if not candidates:
        raise DataError(folder, "no motion_<k>.npy", "each query folder needs its candidates")
    captions = read_captions(texts[0], home)
    if len(texts) > 1 and read_captions(texts[1], home) != captions:
        raise DataError(folder, "text.txt and query.txt differ", "keep the right one")
    return Query(folder.name, captions, tuple(candidates), tuple(candidates.values()))


def _list_candidates(folder: Path) -> dict[int, Path]:
    """The motion file of each candidate, by its number, in ascending order."""
    candidates: dict[int, Path] = {}
    for path in reading.list_folder(folder):
        if not (path.name.startswith("motion_") and path.suffix == ".npy"):
            continue
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


def _warn_of_names(folder: Path, ids: Sequence[str]) -> None:
    """A warning where a few queries have names and all others have numbers."""
    named = [name for name in ids if not is_number(name)]
    if named and len(named) < len(ids):
        problem = f"named folders among numbered queries: {preview(named)}"
        warn(folder, problem, "ranked as queries; take them away if they are none")


def _warn_of_unusual_pools(folder: Path, queries: Sequence[Query]) -> None:
    """One warning for each kind of unusual candidate numbering."""
    sizes = {query.id: len(query.candidates) for query in queries}
    unusual = [name for name, size in sizes.items() if size != POOL_SIZE]
    small = [name for name, size in sizes.items() if size < TOP_K]
    gaps = {
        query.id: f"no motion_{missing}.npy"
        for query in queries
        if (missing := _first_gap(query.candidates)) is not None
    }
    for names, kind, fix in (
        (unusual, f"other than {POOL_SIZE} candidates", "ranked as they are"),
        (
            small,
            f"fewer than {TOP_K} candidates",
            f"they can be ranked, but submission.csv needs {TOP_K}",
        ),
    ):
        if names:
            examples = preview(f"{name} ({sizes[name]} candidates)" for name in names)
            warn(folder, f"{len(names)} of {len(queries)} queries have {kind}: {examples}", fix)
    if gaps:
        examples = preview(f"{name} ({missing})" for name, missing in gaps.items())
        problem = f"{len(gaps)} of {len(queries)} queries have gaps in their candidates: {examples}"
        warn(folder, problem, "ranked by the numbers they have")


def _first_gap(candidates: Sequence[int]) -> int | None:
    """The first number from 1 that is missing before the last candidate; None where none is."""
    return next((k for k, number in enumerate(candidates, start=1) if k != number), None)
