"""Reads the queries of data/test, or of any folder of its form; every check on them and its error."""

import re
from collections.abc import Sequence
from pathlib import Path

from motret.challenge import NO_DATA, Query, id_order, query_key, read_captions, some, warn
from motret.faults import DataFault
from motret.metrics import POOL, TOP


def read_queries(folder: Path) -> tuple[Query, ...]:
    """The queries of data/test, or of any folder of its form: numbered ones by number, then named ones.

    Any fault in a query is fatal. Pools of other than 32, or of fewer than 10, gaps in their numbering and folders that are no
    queries give one warning of each kind. Candidates' motions are not opened.
    """
    if not folder.is_dir():
        raise DataFault(folder, "no such folder", NO_DATA)
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    queries, ignored = [], []
    for path in sorted(folders, key=lambda path: id_order(path.name)):
        query = _read_query(path)
        (ignored.append(path.name) if query is None else queries.append(query))
    if not queries:
        raise DataFault(folder, "no query folder in it", "each query is a folder with text.txt and motion_<k>.npy")
    names: dict[str, str] = {}
    for query in queries:
        if (first := names.setdefault(query_key(query.id), query.id)) != query.id:
            raise DataFault(folder / query.id, f"the same query id as {first}", "take one of the two folders away")
    if ignored:
        warn(folder, f"folders without text and motions: {some(ignored)}", "ignored")
    _warn_of_pools(folder, queries)
    return tuple(queries)


def _read_query(folder: Path) -> Query | None:
    """One query folder; None where it holds neither a text nor a motion."""
    texts = [folder / name for name in ("text.txt", "query.txt") if (folder / name).exists()]
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("motion_*.npy")):
        named = re.fullmatch(r"motion_0*([1-9][0-9]{0,8})", path.stem)
        if not named:
            raise DataFault(path, "not a candidate's name", "name candidates motion_<k>.npy, k = 1, 2, ...")
        number = int(named[1])
        if number in files:
            raise DataFault(path, f"the same candidate {number} as {files[number].name}", "take one of the two files away")
        files[number] = path
    if not texts and not files:
        return None
    if not texts:
        raise DataFault(folder, "no text.txt", "each query folder needs its text")
    if not files:
        raise DataFault(folder, "no motion_<k>.npy", "each query folder needs its candidates")
    captions = read_captions(texts[0])
    if len(texts) > 1 and read_captions(texts[1]) != captions:
        raise DataFault(folder, "text.txt and query.txt differ", "keep the right one")
    numbers = tuple(sorted(files))
    return Query(folder.name, captions, numbers, tuple(files[number] for number in numbers))


def _warn_of_pools(folder: Path, queries: Sequence[Query]) -> None:
    """One warning for each kind of unusual candidate numbering."""
    sizes = {query.id: len(query.candidates) for query in queries}
    other = [name for name, size in sizes.items() if size != POOL]
    few = [name for name, size in sizes.items() if size < TOP]
    gaps = [query.id for query in queries if query.candidates[-1] != len(query.candidates)]
    for names, kind, mend in (
        (other, f"not {POOL} candidates", "ranked as they are"),
        (few, f"fewer than {TOP} candidates", f"they can be ranked, but submission.csv needs {TOP}"),
        (gaps, "gaps in the numbers of motion_<k>.npy", "ranked by the numbers they have"),
    ):
        if names:
            examples = some(f"{name} ({sizes[name]} candidates)" for name in names)
            warn(folder, f"{len(names)} of {len(queries)} queries have {kind}: {examples}", mend)
