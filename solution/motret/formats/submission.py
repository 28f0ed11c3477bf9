"""Writes and reads submission.csv, and reads gt.csv; every check on their form and its error.

Whatever is wrong is a `DataError` that names the file, the line and the column. What is read is keyed by `text_files.query_key`, so
that a submission, a ground truth and the queries meet whether a query is written "1" or "01".
"""
# MERGED: """How far two submissions differ."""
#

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from motret.errors import ConfigError, DataError
from motret.formats.challenge import TOP_K
from motret.formats.queries import Query
from motret.formats.text_files import csv_rows, preview, query_key, read_bytes, read_csv, read_text

FORMATS = {"int": "{}", "name": "motion_{}"}
"""How a submission writes candidate k: as the integer, or as the name of its file."""


def read_ground_truth(path: Path) -> dict[str, int]:
    """The right candidate of each query, by query key, from a gt.csv with the columns query_id and candidate (k or motion_k)."""
    truth: dict[str, int] = {}
    for line, (query, text) in read_csv(path, ("query_id", "candidate")):
        if query_key(query) in truth:
            raise _at_cell(path, line, "query_id", f"query {query} is there twice", "keep one line of it")
        truth[query_key(query)], _ = _candidate(path, line, "candidate", text)
    if not truth:
        raise DataError(path, "no query in it", "write one line a query")
    return truth


def write_submission(path: Path, rows: dict[str, Sequence[int]], candidate_format: str = "int", top_k: int = TOP_K) -> None:
    """Writes the first `top_k` candidates of each query, in the order of `rows`; an older file stays until the new one is whole.

    rows: query id -> candidate numbers k >= 1, best first, distinct, at least top_k. candidate_format: "int" | "name".
    """
    if candidate_format not in FORMATS:
        raise ConfigError("--candidate_format", f"no format {candidate_format!r}", f"take {' or '.join(FORMATS)}")
    if not rows:
        raise DataError(path, "no query to write", "see that the test folder holds some")
    chosen = {query: [index(number) for number in ranked[:top_k]] for query, ranked in rows.items()}
    seen: dict[str, str] = {}
    for query, numbers in chosen.items():
        if not query or query != query.strip():
            raise DataError(path, f"query id {query!r} is empty or has spaces around it", "rename the query's folder")
        if (first := seen.setdefault(query_key(query), query)) != query:
            raise DataError(path, f"queries {first} and {query} are the same", "keep one of them")
        if len(numbers) < top_k:
            raise DataError(path, f"query {query} has {len(numbers)} candidates of {top_k}", f"rank at least {top_k} for every query")
        if len(set(numbers)) < top_k or min(numbers) < 1:
            raise DataError(path, f"query {query} has candidates {numbers}", "rank each once, by its number from 1")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_header(top_k))
            writer.writerows([query, *map(FORMATS[candidate_format].format, numbers)] for query, numbers in chosen.items())
        unfinished.replace(path)
    except OSError as error:
        raise DataError(path, f"cannot be written: {error.strerror or error}", "see that its folder may be written") from error
    finally:
        if unfinished.exists():
            unfinished.unlink()


def read_submission(path: Path, queries: Sequence[Query] | None = None, top_k: int = TOP_K) -> dict[str, tuple[int, ...]]:
    """The ranked candidates of each query, by query key, of a file in exactly the form that the competition takes.

    With `queries` each of them must be there once, no other, and every candidate must be in its folder.
    """
    lines = _strict_lines(path)
    _check_header(path, next(lines, (1, []))[1], top_k)
    known = None if queries is None else {query_key(query.id): query for query in queries}
    answers: dict[str, tuple[int, ...]] = {}
    line_of: dict[str, int] = {}
    form = None
    for line, cells in lines:
        query, *texts = _check_cells(path, line, cells, top_k)
        key = query_key(query)
        if key in answers:
            raise _at_cell(path, line, "query_id", f"query {query} is also on line {line_of[key]}", "keep one row a query")
        if known is not None and (key not in known or known[key].id != query):
            close = f", only {known[key].id}" if key in known else ""
            raise _at_cell(path, line, "query_id", f"no query {query} in the test folder{close}", "name the query folders as they are")
        answers[key], form = _read_candidates(path, line, texts, form, known[key] if known else None)
        line_of[key] = line
    if not answers:
        raise DataError(path, "no row under its header", "write one row a query")
    if known is not None and (missing := [known[key].id for key in known.keys() - answers]):
        raise DataError(path, f"no row for {len(missing)} of {len(known)} queries: {preview(missing)}", "write one row a query")
    return answers


def submission_columns(path: Path) -> int:
    """How many candidates a submission gives each query, by its header."""
    return max(1, len(next(csv_rows(path, read_text(path)), (1, []))[1]) - 1)


def _header(top_k: int) -> list[str]:
    return ["query_id", *(f"candidate_{rank}" for rank in range(1, top_k + 1))]


def _at_cell(path: Path, line: int, column: str, problem: str, fix: str) -> DataError:
    return DataError(path, f"line {line}, column {column}: {problem}", fix)


def _candidate(path: Path, line: int, column: str, text: str) -> tuple[int, str]:
    """Candidate number and format ("int" | "name") of a cell: k or motion_k, k from 1 and without leading zeros."""
    found = re.fullmatch(r"(motion_)?([1-9][0-9]{0,8})", text)
    if not found:
        raise _at_cell(path, line, column, f"{text!r} is no candidate", "write k or motion_k, k a whole number from 1")
    return int(found[2]), "name" if found[1] else "int"


def _strict_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The file's rows with their line numbers; other encodings and a byte order mark, which `read_text` forgives, are faults here."""
    content = read_bytes(path)
    if content.startswith(b"\xef\xbb\xbf"):
        raise DataError(path, "line 1, column 1: a byte order mark stands before the header", "save it as UTF-8 without BOM")
    try:
        return csv_rows(path, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        problem = f"line {len(before)}, column {before[-1].count(b',') + 1}: not UTF-8 at byte {error.start}"
        raise DataError(path, problem, "save it as UTF-8") from error


def _check_header(path: Path, found: list[str], top_k: int) -> None:
    expected = _header(top_k)
    fix = f"write the header {','.join(expected)}"
    if found and (not found[0].strip() or found[0].startswith("Unnamed")):
        raise DataError(path, f"line 1, column 1: {found[0]!r} is an index column", "leave it out: to_csv(..., index=False)")
    for place, name in enumerate(found, start=1):
        if place > len(expected):
            raise DataError(path, f"line 1, column {place}: {name!r} is one too many", fix)
        if name != expected[place - 1]:
            spaces = " has stray spaces," if name.strip() == expected[place - 1] else ""
            raise DataError(path, f"line 1, column {place}: {name!r}{spaces} where {expected[place - 1]!r} belongs", fix)
    if len(found) < len(expected):
        raise DataError(path, f"line 1, column {len(found) + 1}: {expected[len(found)]!r} is missing", fix)


def _check_cells(path: Path, line: int, cells: list[str], top_k: int) -> list[str]:
    """The cells of a row, none empty, none with spaces around it, as many as the header has."""
    columns = _header(top_k)
    if not any(cell.strip() for cell in cells):
        raise _at_cell(path, line, columns[0], "empty row", "take it out")
    for column, cell in zip(columns, cells, strict=False):
        if not cell.strip():
            raise _at_cell(path, line, column, "empty", f"fill it in, each row has {top_k} candidates")
        if cell != cell.strip():
            raise _at_cell(path, line, column, f"{cell!r} has stray spaces", "take them out")
    if len(cells) != len(columns):
        last = columns[len(cells)] if len(cells) < len(columns) else str(len(columns) + 1)
        raise _at_cell(path, line, last, f"{len(cells) - 1} candidates in the row", f"give exactly {top_k}")
    return cells


def _read_candidates(path: Path, line: int, texts: list[str], form: str | None, query: Query | None) -> tuple[tuple[int, ...], str]:
    """The candidates of a row and their format, which must be that of the rows before (`form`); query: whose they must be."""
    ranked: list[int] = []
    for rank, text in enumerate(texts, start=1):
        column = f"candidate_{rank}"
        number, found = _candidate(path, line, column, text)
        form = form or found
        if found != form:
            raise _at_cell(path, line, column, f"{text!r} is not written like those before it", "write all as k, or all as motion_k")
        if number in ranked:
            raise _at_cell(path, line, column, f"{text} is also in candidate_{ranked.index(number) + 1}", "name each candidate once")
        if query is not None and number not in query.candidates:
            raise _at_cell(path, line, column, f"query {query.id} has no motion_{number}.npy", "name candidates that the query has")
        ranked.append(number)
    return tuple(ranked), form


@dataclass(frozen=True)
class SubmissionDifference:
    """Over the queries of two submissions: correlation of their ranks, share whose first candidate changed, candidates in common of k."""

    queries: int
    correlation: float
    changed: float
    overlap: float
    top_k: int

    def line(self) -> str:
        """For people."""
        return (
            f"rank correlation {self.correlation:.4f}, first candidate changed in {self.changed:.1%} of {self.queries} queries, "
            f"{self.overlap:.2f} of {self.top_k} candidates in common"
        )


def compare_submissions(first: Path, second: Path) -> SubmissionDifference:
    """Compares two submissions of the same queries and length. DataError where they are not."""
    top_k = submission_columns(first)
    one, other = read_submission(first, top_k=top_k), read_submission(second, top_k=top_k)
    if unlike := sorted(one.keys() ^ other.keys()):
        raise DataError(second, f"answers other queries than {first.name}: {preview(unlike)}", "compare submissions of one test folder")
    pairs = [(one[query], other[query]) for query in one]
    return SubmissionDifference(
        queries=len(pairs),
        correlation=float(np.mean([rank_correlation(*pair) for pair in pairs])),
        changed=float(np.mean([mine[0] != yours[0] for mine, yours in pairs])),
        overlap=float(np.mean([len(set(mine) & set(yours)) for mine, yours in pairs])),
        top_k=top_k,
    )


def rank_correlation(first: Sequence[int], second: Sequence[int]) -> float:
    """Spearman's correlation of two rankings over all that either lists; what one does not list shares its places after the last."""
    every = sorted({*first, *second})
    ranks = [rankdata([own.index(one) if one in own else len(own) for one in every]) for own in (first, second)]
    if len(every) == 1:
        return 1.0
    return float(np.corrcoef(*ranks)[0, 1])


def rank_candidates(queries: Sequence[Query], similarities: Sequence[np.ndarray]) -> dict[str, list[int]]:
    """Candidate numbers of each query, best first; ties keep the order of the files."""
    orders = (np.argsort(-similarity, kind="stable") for similarity in similarities)
    return {query.id: [query.candidates[place] for place in order] for query, order in zip(queries, orders, strict=True)}
