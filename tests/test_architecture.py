"""The package as docs/architecture.md has it: every module is named there, in an order in which each imports only those before it."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = {path.stem: path for path in (ROOT / "solution" / "motret").glob("*.py") if path.stem != "__init__"}


def imported(code: str) -> set[str]:
    """The modules of the package that some code imports, at its top or within a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} if node.module != "motret" else {f"motret.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name.split(".")[1] for name in found if name.startswith("motret.")}


def listed() -> list[str]:
    """The names on the page, in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"`(\w+)`", page.split("\n## Modules\n")[1].split("\n## ")[0])


GRAPH = {name: imported(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def test_imports_are_found_wherever_they_stand() -> None:
    code = "from motret import fit, runs\nfrom motret.text import x\nimport numpy\ndef f():\n    import motret.page"
    assert imported(code) == {"fit", "runs", "text", "page"}


def test_every_module_is_on_the_page_once() -> None:
    assert sorted(listed()) == sorted(MODULES)


def test_no_module_imports_in_a_circle() -> None:
    list(TopologicalSorter(GRAPH).static_order())  # CycleError names the circle


def test_each_module_imports_only_those_before_it_on_the_page() -> None:
    order = listed()
    wrong = [f"{name} imports {other}" for at, name in enumerate(order) for other in GRAPH[name] if other not in order[:at]]
    assert not wrong
