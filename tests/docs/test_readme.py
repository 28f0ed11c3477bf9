"""Every command of the README and of the other pages is one that the scripts take."""

import re
import shlex
from pathlib import Path

import pytest

from motret.config import base, cli, presets, scripts
from motret.pipeline.plan import make_plan

README = Path(__file__).parents[2] / "README.md"
PAGES = (README, README.parent / "entry_points.md", *sorted((README.parent / "docs").glob("[!o]*.md")))
"""All but own_model.md, which trains a variant that it adds, and has a test of its own."""
KINDS = {
    "sample": scripts.SampleConfig,
    "prepare": scripts.PrepareConfig,
    "make_folds": scripts.FoldConfig,
    "ensemble": scripts.EnsembleConfig,
    "report": scripts.ReportConfig,
    "search": scripts.SearchConfig,
    "bench": scripts.BenchConfig,
}


def commands() -> list[list[str]]:
    """Command lines of the pages' bash blocks and of their inline code, comments dropped, as words."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:python solution|bash run_all)[^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0] in ("python", "bash")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_pages_is_understood(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, args = Path(words[1]), words[2:]
    if words[0] == "bash":
        assert (README.parent / script).is_file()
        if script.name == "run_all.sh":
            monkeypatch.setattr(base, "ROOT", tmp_path)  # no data folder there
            (tmp_path / "SETTINGS.json").write_text((README.parent / "SETTINGS.json").read_text())
            (tmp_path / "DIR").mkdir()
            monkeypatch.chdir(tmp_path)
            plan = make_plan([arg for arg in args if arg != "--dry_run"])
            assert plan.generated == ("--data_dir" not in args)
        return
    assert (README.parent / script).is_file()
    if script.stem == "tune":
        assert set(cli.parse_tune(args, None)[0].variants) <= set(presets.VARIANTS)
    elif script.stem == "train":
        assert cli.parse_train(args, None)[0].variant in presets.VARIANTS
    elif script.stem == "validate":
        kinds = {"oof": scripts.OofConfig, "submission": scripts.SubmissionConfig, "make_batches": scripts.ValidationQueriesConfig}
        kinds |= {"record": scripts.RecordConfig, "compare": scripts.CompareConfig}
        assert type(cli.parse_one_of(kinds, args, None)) is kinds[args[0]]
    else:
        assert isinstance(cli.parse(KINDS[script.stem], args, None), KINDS[script.stem])


def test_the_readme_names_every_script_variant_and_preset() -> None:
    text = README.read_text(encoding="utf-8")
    for script in (README.parent / "solution").glob("*.py"):
        assert script.name in text or script.stem == "run_all", script
    for name in (*presets.VARIANTS, *presets.PRESETS):
        assert f"`{name}`" in text, name
