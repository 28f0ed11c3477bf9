"""Reads the queries of data/test, or of any folder of its form; every check on them and its error."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from motret.errors import DataError, warn
from motret.formats.challenge import NO_DATA_FIX, POOL_SIZE, TOP_K
from motret.formats.text_files import id_order, preview, query_key, read_captions


@dataclass(frozen=True)
class Query:
    """One folder of data/test: its captions and its candidates, by rising number k of motion_<k>.npy."""

    id: str
    """The folder's name, as it stands."""
    captions: tuple[str, ...]
    candidates: tuple[int, ...]
    paths: tuple[Path, ...]


def read_queries(folder: Path) -> tuple[Query, ...]:
    """The queries of data/test, or of any folder of its form: numbered ones by number, then named ones.

    Any fault in a query is fatal. Pools of other than 32, or of fewer than 10, gaps in their numbering and folders that are no
    queries give one warning of each kind. Candidates' motions are not opened.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder", NO_DATA_FIX)
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    queries, ignored = [], []
    for path in sorted(folders, key=lambda path: id_order(path.name)):
        query = _read_query(path)
        (ignored.append(path.name) if query is None else queries.append(query))
    if not queries:
        raise DataError(folder, "no query folder in it", "each query is a folder with text.txt and motion_<k>.npy")
    names: dict[str, str] = {}
    for query in queries:
        if (first := names.setdefault(query_key(query.id), query.id)) != query.id:
            raise DataError(folder / query.id, f"the same query id as {first}", "take one of the two folders away")
    if ignored:
        warn(folder, f"folders without text and motions: {preview(ignored)}", "ignored")
    _warn_of_unusual_pools(folder, queries)
    return tuple(queries)


def _read_query(folder: Path) -> Query | None:
    """One query folder; None where it holds neither a text nor a motion."""
    texts = [folder / name for name in ("text.txt", "query.txt") if (folder / name).exists()]
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("motion_*.npy")):
        named = re.fullmatch(r"motion_0*([1-9][0-9]{0,8})", path.stem)
        if not named:
            raise DataError(path, "not a candidate's name", "name candidates motion_<k>.npy, k = 1, 2, ...")
        number = int(named[1])
        if number in files:
            raise DataError(path, f"the same candidate {number} as {files[number].name}", "take one of the two files away")
        files[number] = path
    if not texts and not files:
        return None
    if not texts:
        raise DataError(folder, "no text.txt", "each query folder needs its text")
    if not files:
        raise DataError(folder, "no motion_<k>.npy", "each query folder needs its candidates")
    captions = read_captions(texts[0])
    if len(texts) > 1 and read_captions(texts[1]) != captions:
        raise DataError(folder, "text.txt and query.txt differ", "keep the right one")
    numbers = tuple(sorted(files))
    return Query(folder.name, captions, numbers, tuple(files[number] for number in numbers))


def _warn_of_unusual_pools(folder: Path, queries: Sequence[Query]) -> None:
    """One warning for each kind of unusual candidate numbering."""
    sizes = {query.id: len(query.candidates) for query in queries}
    other = [name for name, size in sizes.items() if size != POOL_SIZE]
    few = [name for name, size in sizes.items() if size < TOP_K]
    gaps = [query.id for query in queries if query.candidates[-1] != len(query.candidates)]
    for names, kind, fix in (
        (other, f"not {POOL_SIZE} candidates", "ranked as they are"),
        (few, f"fewer than {TOP_K} candidates", f"they can be ranked, but submission.csv needs {TOP_K}"),
        (gaps, "gaps in the numbers of motion_<k>.npy", "ranked by the numbers they have"),
    ):
        if names:
            examples = preview(f"{name} ({sizes[name]} candidates)" for name in names)
            warn(folder, f"{len(names)} of {len(queries)} queries have {kind}: {examples}", fix)
