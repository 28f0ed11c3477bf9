"""Each folder of the package imports only from those that docs/architecture.md allows."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "solution" / "motret"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
}
FOLDERS = {name.split(".")[0] for name in MODULES}


def imported(code: str) -> set[str]:
    """The modules of the package that some code imports, at its top or within a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    names = {name.removeprefix("motret.") for name in names if name.startswith("motret.")}
    return {name for name in names if name in MODULES}


def allowed_imports() -> dict[str, set[str]]:
    """Folder -> the folders that it may import from, by the table on the page, in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", page, re.M)
    return {folder: set(re.findall(r"`(\w+)`", cell)) for folder, cell in rows}


IMPORTS = {name: imported(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def test_imports_are_found_wherever_they_stand() -> None:
    code = (
        "from motret.runs import run\nfrom motret.training.fit import fit\nimport numpy\n"
        "def f():\n    import motret.report.page"
    )
    assert imported(code) == {"runs.run", "training.fit", "report.page"}


def test_every_folder_is_on_the_page_once() -> None:
    assert set(allowed_imports()) == FOLDERS


def test_no_module_imports_in_a_circle() -> None:
    list(TopologicalSorter(IMPORTS).static_order())  # CycleError names the circle


def test_each_folder_imports_only_from_those_that_the_page_allows() -> None:
    allowed = allowed_imports()
    problems = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if (above := name.split(".")[0]) != (below := other.split(".")[0])
        and below not in allowed[above]
    ]
    assert not problems


def test_each_folder_stands_above_those_it_imports() -> None:
    allowed = allowed_imports()
    order = list(allowed)
    assert not [
        (folder, below)
        for folder, others in allowed.items()
        for below in others
        if order.index(below) >= order.index(folder)
    ]


def test_the_page_allows_nothing_that_no_module_needs() -> None:
    used = {
        (name.split(".")[0], other.split(".")[0])
        for name, others in IMPORTS.items()
        for other in others
    }
    assert not [
        (folder, below)
        for folder, others in allowed_imports().items()
        for below in others
        if (folder, below) not in used
    ]


def test_the_picture_has_the_arrows_that_do_not_follow_from_others() -> None:
    allowed = allowed_imports()
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", page, re.M))

    def all_below(folder: str) -> set[str]:
        return allowed[folder].union(*(all_below(below) for below in allowed[folder]))

    direct = {
        (folder, below)
        for folder, others in allowed.items()
        for below in others
        if not any(below in all_below(other) for other in others)
    }
    assert drawn == direct
