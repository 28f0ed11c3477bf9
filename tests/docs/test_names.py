"""Names are nouns of the field: no participle stands for a thing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "solution").rglob("*.py"))

VAGUE = {
    "asked", "beside", "chosen", "drawn", "due", "found", "given", "held", "kept", "known", "luck",
    "made", "mine", "own", "owner", "place", "places", "said", "seen", "share", "shares", "shown",
    "slope", "slopes", "stale", "there", "told", "wanted", "worth",
}  # fmt: skip
"""Words that say what was done to a thing, or nothing, instead of what it is."""

AMERICAN = {"optimiser": "optimizer", "normalise": "normalize", "colour": "color"}
"""Spellings of torch and matplotlib, which the code would otherwise mix with another."""

UNPLAIN = re.compile(
    r"\b(mends?|mended|aloud|DataFault|SettingFault|RunFault|FoldFault|WeightsFault)\b"
)
"""Words for `fix`, `shown` and the errors that messages and docstrings do not use."""


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each variable, parameter, function, class and field of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_bindings_are_found_in_every_form() -> None:
    code = (
        "def f(a, *b, c=1):\n    d: int = 1\n    for e in a: pass\n    return [g for g in b]\n"
        "class H: i = 1\n"
    )
    assert {name for _, name in bindings(ast.parse(code))} == set("abcdefgHi")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "solution")))
def test_names_say_what_a_thing_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = list(bindings(ast.parse(text)))
    assert not [f"line {line}: {name}" for line, name in names if name.strip("_") in VAGUE]
    assert not [
        f"line {line}: {name}, say {AMERICAN[name]}" for line, name in names if name in AMERICAN
    ]
    assert not UNPLAIN.findall(text)
