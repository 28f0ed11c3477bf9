"""Writes and reads submission.csv, and reads gt.csv.

Whatever is wrong is a `DataError` that names the file, the line and the column. Results are keyed
by `text_files.query_key`, so a submission, a ground truth and the queries match whether a query is
written "1" or "01".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from operator import index as as_index
from pathlib import Path

import numpy as np

from motret.errors import ConfigError, DataError
from motret.formats.challenge import TOP_K
from motret.formats.queries import Query
from motret.formats.text_files import (
    cell_problem,
    csv_rows,
    preview,
    query_key,
    read_csv,
)
from motret.utils import files, reading

CANDIDATE_FORMATS = {"int": "{}", "name": "motion_{}"}
"""How a submission writes candidate k: as the number, or as the name of its file."""

# ---- ranking and writing


def rank_candidates(
    queries: Sequence[Query], similarities: Sequence[np.ndarray]
) -> dict[str, list[int]]:
    """Candidate numbers of each query, best first; ties keep the order of the files.

    similarities: of each query to its candidates, (n,) each.
    """
    orders = (np.argsort(-similarity, kind="stable") for similarity in similarities)
    return {
        query.id: [query.candidates[index] for index in order]
        for query, order in zip(queries, orders, strict=True)
    }


def write_submission(
    path: Path,
    rankings: Mapping[str, Sequence[int]],
    candidate_format: str = "int",
    top_k: int = TOP_K,
) -> None:
    """Writes the first `top_k` candidates of each query; an older file stays until all is written.

    rankings: query id -> candidate numbers k >= 1, best first, distinct, at least top_k; the order
    of the queries is that of the file. candidate_format: "int" | "name".
    """
    if candidate_format not in CANDIDATE_FORMATS:
        problem = f"no format {candidate_format!r}"
        raise ConfigError("--candidate_format", problem, f"use {' or '.join(CANDIDATE_FORMATS)}")
    ranked = {
        query: [as_index(number) for number in numbers[:top_k]]
        for query, numbers in rankings.items()
    }
    _check_rankings(path, ranked, top_k)
    write_candidate = CANDIDATE_FORMATS[candidate_format].format
    header = _header(top_k)
    rows = [
        dict(zip(header, [query, *map(write_candidate, numbers)], strict=True))
        for query, numbers in ranked.items()
    ]
    try:
        files.write_csv(path, rows, header)
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
        raise DataError(path, problem, "check that its folder is writable and has space") from error


def _check_rankings(path: Path, ranked: Mapping[str, Sequence[int]], top_k: int) -> None:
    """DataError where these rankings make no submission."""
    if not ranked:
        raise DataError(path, "no query to write", "check that the test folder holds some")
    first_ids: dict[str, str] = {}
    for query, numbers in ranked.items():
        if not query or query != query.strip():
            problem = f"query id {query!r} is empty or has spaces around it"
            raise DataError(path, problem, "rename the query's folder")
        if problem := cell_problem(query):
            raise DataError(path, f"query id {query!r} {problem}", "rename the query's folder")
        if (first_id := first_ids.setdefault(query_key(query), query)) != query:
            problem = f"queries {first_id} and {query} are the same"
            raise DataError(path, problem, "keep one of them")
        if len(numbers) < top_k:
            problem = f"query {query} has {len(numbers)} candidates of {top_k}"
            raise DataError(path, problem, f"rank at least {top_k} for every query")
        if len(set(numbers)) < top_k or min(numbers) < 1:
            problem = f"query {query} has candidates {numbers}"
            raise DataError(path, problem, "rank each once, by its number from 1")


# ---- reading


def read_ground_truth(path: Path) -> dict[str, int]:
    """The right candidate of each query, by query key.

    path: a gt.csv with the columns query_id and candidate (k or motion_k).
    """
    truth: dict[str, int] = {}
    for line_number, (query, text) in read_csv(path, ("query_id", "candidate")):
        if query_key(query) in truth:
            problem = f"query {query} is there twice"
            raise _cell_error(path, line_number, "query_id", problem, "keep one of its lines")
        truth[query_key(query)], _ = _parse_candidate(path, line_number, "candidate", text)
    if not truth:
        raise DataError(path, "no query in it", "write one line per query")
    return truth


def read_submission(
    path: Path, queries: Sequence[Query] | None = None, top_k: int = TOP_K
) -> dict[str, tuple[int, ...]]:
    """The ranked candidates of each query, by query key.

    The file must have exactly the form that the competition takes. With `queries` it must answer
    each of them once, no other, with candidates from its folder.
    """
    rows = _strict_rows(path)
    _check_header(path, next(rows, (1, []))[1], top_k)
    query_of = None if queries is None else {query_key(query.id): query for query in queries}
    answers: dict[str, tuple[int, ...]] = {}
    line_of: dict[str, int] = {}
    candidate_format = None
    for line_number, cells in rows:
        query_id, *texts = _check_cells(path, line_number, cells, top_k)
        key = query_key(query_id)
        if key in answers:
            problem = f"query {query_id} is also on line {line_of[key]}"
            raise _cell_error(path, line_number, "query_id", problem, "keep one row per query")
        query = None
        if query_of is not None:
            query = query_of.get(key)
            if query is None or query.id != query_id:
                similar = f", only {query.id}" if query else ""
                problem = f"no query {query_id} in the test folder{similar}"
                fix = "write query ids as the query folders are named"
                raise _cell_error(path, line_number, "query_id", problem, fix)
        answers[key], candidate_format = _parse_candidates(
            path, line_number, texts, candidate_format, query
        )
        line_of[key] = line_number
    if not answers:
        raise DataError(path, "no row under its header", "write one row per query")
    if query_of is not None and (
        missing := [query_of[key].id for key in query_of.keys() - answers]
    ):
        problem = f"no row for {len(missing)} of {len(query_of)} queries: {preview(missing)}"
        raise DataError(path, problem, "write one row per query")
    return answers


def submission_columns(path: Path) -> int:
    """How many candidates a submission gives each query, by its header."""
    return max(1, len(next(csv_rows(path, reading.read_text(path)), (1, []))[1]) - 1)


# ---- checks of header, rows and cells


def _header(top_k: int) -> list[str]:
    return ["query_id", *(f"candidate_{rank}" for rank in range(1, top_k + 1))]


def _cell_error(path: Path, line_number: int, column: str, problem: str, fix: str) -> DataError:
    return DataError(path, f"line {line_number}, column {column}: {problem}", fix)


def _strict_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row; unlike `read_text`, a byte order mark is an error."""
    content = reading.read_bytes(path, reading.MAX_TABLE_BYTES)
    if content.startswith(b"\xef\xbb\xbf"):
        problem = "line 1, column 1: a byte order mark stands before the header"
        raise DataError(path, problem, "save it as UTF-8 without BOM")
    try:
        return csv_rows(path, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        cell = f"line {len(before)}, column {before[-1].count(b',') + 1}"
        problem = f"{cell}: not UTF-8 at byte {error.start}"
        raise DataError(path, problem, "save it as UTF-8") from error


def _check_header(path: Path, header: Sequence[str], top_k: int) -> None:
    expected = _header(top_k)
    fix = f"write the header {','.join(expected)}"
    if header and (not header[0].strip() or header[0].startswith("Unnamed")):
        problem = f"line 1, column 1: {header[0]!r} is an index column"
        raise DataError(path, problem, "leave it out: to_csv(..., index=False)")
    for number, name in enumerate(header, start=1):
        column = f"line 1, column {number}"
        if number > len(expected):
            raise DataError(path, f"{column}: {name!r} is one too many", fix)
        if name != (right := expected[number - 1]):
            spaces = " has stray spaces," if name.strip() == right else ""
            raise DataError(path, f"{column}: {name!r}{spaces} where {right!r} belongs", fix)
    if len(header) < len(expected):
        problem = f"line 1, column {len(header) + 1}: {expected[len(header)]!r} is missing"
        raise DataError(path, problem, fix)


def _check_cells(path: Path, line_number: int, cells: list[str], top_k: int) -> list[str]:
    """The cells of a row: none empty, none with spaces around it, as many as the header has."""
    columns = _header(top_k)
    if not any(cell.strip() for cell in cells):
        raise _cell_error(path, line_number, columns[0], "empty row", "remove it")
    for column, cell in zip(columns, cells, strict=False):
        if not cell.strip():
            fix = f"fill it in, each row has {top_k} candidates"
            raise _cell_error(path, line_number, column, "empty", fix)
        if cell != cell.strip():
            problem = f"{cell!r} has stray spaces"
            raise _cell_error(path, line_number, column, problem, "remove them")
    if len(cells) != len(columns):
        column = columns[len(cells)] if len(cells) < len(columns) else str(len(columns) + 1)
        problem = f"{len(cells) - 1} candidates in the row"
        raise _cell_error(path, line_number, column, problem, f"give exactly {top_k}")
    return cells


def _parse_candidate(path: Path, line_number: int, column: str, text: str) -> tuple[int, str]:
    """Number and format ("int" | "name") of a candidate: k or motion_k, k from 1 without zeros."""
    match = re.fullmatch(r"(motion_)?([1-9][0-9]{0,8})", text)
    if not match:
        fix = "write k or motion_k, k a whole number from 1"
        raise _cell_error(path, line_number, column, f"{text!r} is no candidate", fix)
    return int(match[2]), "name" if match[1] else "int"


def _parse_candidates(
    path: Path,
    line_number: int,
    texts: Sequence[str],
    expected_format: str | None,
    query: Query | None,
) -> tuple[tuple[int, ...], str | None]:
    """The candidates of a row and their format.

    expected_format: that of the rows before; query: whose candidates they must be.
    """
    numbers: list[int] = []
    for rank, text in enumerate(texts, start=1):
        column = f"candidate_{rank}"
        number, candidate_format = _parse_candidate(path, line_number, column, text)
        expected_format = expected_format or candidate_format
        if candidate_format != expected_format:
            problem, fix = f"{text!r} differs in form", "write all as k, or all as motion_k"
        elif number in numbers:
            problem = f"{text} is also in candidate_{numbers.index(number) + 1}"
            fix = "name each candidate once"
        elif query is not None and number not in query.candidates:
            problem = f"query {query.id} has no motion_{number}.npy"
            fix = "name candidates that the query has"
        else:
            numbers.append(number)
            continue
        raise _cell_error(path, line_number, column, problem, fix)
    return tuple(numbers), expected_format
