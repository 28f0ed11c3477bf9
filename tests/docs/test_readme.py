"""What the README and the pages of docs/ name exists: commands, flags, links, files, messages."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from motret.config import base, cli, presets, scripts, training
from motret.kaggle import metadata
from motret.pipeline.plan import PLAN_FLAGS, make_plan

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "entry_points.md",
    ROOT / "folds" / "README.md",
    ROOT / "submissions" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
CONFIGS = {
    "sample": scripts.SampleConfig,
    "adapt": scripts.AdaptConfig,
    "rerank": scripts.RerankConfig,
    "prepare": scripts.PrepareConfig,
    "make_folds": scripts.FoldConfig,
    "ensemble": scripts.EnsembleConfig,
    "report": scripts.ReportConfig,
    "search": scripts.SearchConfig,
    "bench": scripts.BenchConfig,
    "package": scripts.PackageConfig,
}
VALIDATE = {
    "oof": scripts.OofConfig,
    "submission": scripts.SubmissionConfig,
    "record": scripts.RecordConfig,
    "compare": scripts.CompareConfig,
    "make_batches": scripts.ValidationQueriesConfig,
}
INDEX = {
    "build": scripts.IndexBuildConfig,
    "add": scripts.IndexAddConfig,
    "check": scripts.IndexCheckConfig,
}


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str) -> list[str]:
    pattern = rf"```{language}\n(.*?)```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), flags=re.DOTALL)


def without_code_blocks(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_code_blocks(page))


COMMAND = re.compile(r"(PYTHON=\S+ )?(python|bash) ")


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Page and words of each command of this repository, without comments and assignments."""
    for page in PAGES:
        lines = [line for block in code_blocks(page, "bash") for line in block.splitlines()]
        lines += [code for code in inline_code(page) if COMMAND.match(code)]
        for line in lines:
            for call in line.split(" && "):
                words = shlex.split(call, comments=True)
                while words and re.match(r"[A-Z]+=", words[0]):
                    words = words[1:]
                if len(words) > 1 and words[0] in ("python", "bash"):
                    yield page, words


def variants_added_by(page: Path) -> dict[str, dict]:
    """The lines for the table of variants that a page shows."""
    lines = [line for block in code_blocks(page, "python") for line in block.splitlines()]
    entries = [line for line in lines if re.fullmatch(r'"\w+": \{.*\},', line)]
    return ast.literal_eval(f"{{{' '.join(entries)}}}")


def flags_added_by(page: Path) -> set[str]:
    """Settings that the example of a page defines."""
    code = "\n".join(code_blocks(page, "python"))
    return set(re.findall(r"^    (\w+): \w+ = ", code, re.M))


def without_flags(args: list[str], names: set[str]) -> list[str]:
    """The arguments without these flags and the value of each."""
    flags = {f"--{name}" for name in names}
    pairs = zip(["", *args], args, strict=False)
    return [arg for before, arg in pairs if arg not in flags and before not in flags]


def case(page: Path, words: list[str]) -> Any:
    return pytest.param(page, words, id=f"{page_name(page)}: {' '.join(words)}")


@pytest.mark.parametrize(("page", "words"), [case(page, words) for page, words in commands()])
def test_a_command_of_the_pages_is_understood(
    page: Path,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script, args = Path(words[1]), without_flags(words[2:], flags_added_by(page))
    assert (ROOT / script).is_file()
    for name, values in variants_added_by(page).items():
        monkeypatch.setitem(presets.VARIANTS, name, values)
    if script.name == "run_all.sh":
        monkeypatch.setattr(base, "ROOT", tmp_path)  # no data folder there
        settings = (ROOT / "SETTINGS.json").read_text(encoding="utf-8")
        (tmp_path / "SETTINGS.json").write_text(settings, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        if "--data_dir" in args:
            place = args.index("--data_dir") + 1
            args[place] = args[place].strip("/")
            Path(args[place]).mkdir(parents=True)
        plan = make_plan([arg for arg in args if arg != "--dry_run"])
        assert plan.generated == ("--data_dir" not in args)
    elif script.stem == "tune":
        assert set(cli.parse_tune(args, None)[0].variants) <= set(presets.VARIANTS)
    elif script.stem == "train":
        assert cli.parse_train(args, None)[0].variant in presets.VARIANTS
    elif script.stem == "validate":
        assert type(cli.parse_one_of(VALIDATE, args, None)) is VALIDATE[args[0]]
    elif script.stem == "index":
        assert type(cli.parse_one_of(INDEX, args, None)) is INDEX[args[0]]
    elif script.stem == "distill":
        assert cli.parse_train(args[args.index("--") + 1 :], None)[0].variant in presets.VARIANTS
    elif script.stem == "cross_attention":
        monkeypatch.syspath_prepend(ROOT / script.parent)
        importlib.import_module(script.stem).parse(args)
    elif script.parts[0] == "tests" and script.suffix == ".py":
        importlib.import_module(script.stem).parse_arguments(args)
    elif script.suffix == ".py":
        assert isinstance(cli.parse(CONFIGS[script.stem], args, None), CONFIGS[script.stem])


KAGGLE_FLAGS = {
    "auth login": set(),
    "competitions download": {"-c", "-p"},
    "competitions submit": {"-c", "-f", "-m", "-k", "-v"},
    "datasets create": {"-p", "--dir-mode"},
    "datasets version": {"-p", "--dir-mode", "-m"},
    "datasets status": set(),
    "kernels push": {"-p"},
    "kernels status": set(),
    "kernels logs": set(),
    "kernels output": {"-p", "--file-pattern", "-o"},
}
"""Commands of Kaggle's program, version 2.2.5, with those of their flags that are used."""


def kaggle_commands() -> Iterator[Any]:
    """Words of each call of Kaggle's program, on the pages and as package.py prints them."""
    for page in PAGES:
        lines = [line for block in code_blocks(page, "bash") for line in block.splitlines()]
        for line in [*lines, *inline_code(page)]:
            if line.startswith("kaggle ") and len(words := shlex.split(line, comments=True)) > 3:
                yield case(page, words)
    names = metadata.KaggleNames("me", "motions", "motret")
    for line in metadata.next_commands(names, Path("work/kaggle"), from_training=True):
        if not line.startswith("#"):
            yield case(ROOT / "solution" / "package.py", shlex.split(line))


@pytest.mark.parametrize(("page", "words"), kaggle_commands())
def test_a_command_of_kaggles_program_exists_there(page: Path, words: list[str]) -> None:
    flags = {word for word in words[3:] if word.startswith("-")}
    assert flags <= KAGGLE_FLAGS[" ".join(words[1:3])]


def known_flags() -> set[str]:
    kinds = [
        *CONFIGS.values(),
        *VALIDATE.values(),
        *INDEX.values(),
        scripts.TuneConfig,
        training.TrainConfig,
    ]
    names = set().union(*(base.flag_defaults(kind) for kind in kinds))
    names |= {f"no_{name}" for name in names}
    return (
        names
        | PLAN_FLAGS
        | {"dry_run", "help", "install_browser"}
        | {"cases", "points", "workers", "kills"}
    )


OTHER_PROGRAMS = ("pip ", "kaggle ", "git ", "torchrun ", "PYTHONPATH=")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_flag_that_a_page_names_exists(page: Path) -> None:
    ours = [code for code in inline_code(page) if not code.startswith(OTHER_PROGRAMS)]
    flags = {flag for code in ours for flag in re.findall(r"(?<![\w-])--(\w+)", code)}
    assert flags <= known_flags() | flags_added_by(page)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code_blocks(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    problems = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(page)):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            problems.append(link)
    assert not problems


OUR_FILE = re.compile(r"(?:solution|docs|tests|folds|submissions)/[\w./-]+\.(?:py|md|sh|png)")
READERS_OWN = re.compile(r"solution/my_\w+\.py")
"""Files that a page tells its reader to write."""


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    files = {code for code in inline_code(page) if OUR_FILE.fullmatch(code)}
    missing = [file for file in files if not (ROOT / file).is_file()]
    assert not [file for file in missing if not READERS_OWN.fullmatch(file)]


def test_every_module_that_the_architecture_names_exists() -> None:
    package = ROOT / "solution" / "motret"
    folders = {path.name for path in package.iterdir() if path.is_dir()}
    code = inline_code(ROOT / "docs" / "architecture.md")
    paths = [name for name in code if re.fullmatch(r"\w+/\w+", name)]
    modules = [name for name in paths if name.split("/")[0] in folders]
    assert len(modules) > 10
    assert not [name for name in modules if not (package / f"{name}.py").is_file()]


def test_every_page_that_the_code_names_exists() -> None:
    for path in (ROOT / "solution").rglob("*.py"):
        for name in re.findall(r"docs/\w+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def program_texts() -> str:
    """All texts of the program, one a line; a formatted value ends one text and begins another."""
    texts = [(ROOT / "solution" / "environment.sh").read_text(encoding="utf-8")]
    for path in (ROOT / "solution").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
        texts += [value for value in constants if isinstance(value, str)]
    return "\n".join(texts)


def test_every_message_on_the_page_of_troubleshooting_is_one_of_the_program() -> None:
    page = without_code_blocks(ROOT / "docs" / "troubleshooting.md")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 20
    texts = program_texts()
    pieces = [piece.strip() for message in messages for piece in message.split("...")]
    assert not [piece for piece in pieces if piece not in texts]


def test_the_page_on_usage_names_every_script_variant_and_preset() -> None:
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    for script in (ROOT / "solution").glob("*.py"):
        assert script.name in text or script.stem == "run_all", script
    for name in (*presets.VARIANTS, *presets.PRESETS):
        assert f"`{name}`" in text, name


def test_the_readme_fits_two_screens_and_links_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 110
    linked = text + (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if page.name not in linked]
