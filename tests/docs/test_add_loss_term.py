"""docs/add_loss_term.md does what it says."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import helpers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_loss_term.md").read_text(encoding="utf-8")


def insert(file: Path, start: str, before: str, code: str) -> None:
    """Inserts code after the line that starts with `start`, before the next with `before`."""
    text = file.read_text(encoding="utf-8")
    index = text.index(f"\n{before}", text.index(f"\n{start}")) + 1
    file.write_text(text[:index] + code + text[index:], encoding="utf-8")


def test_the_setting_and_the_row_of_the_page_add_a_term_to_the_loss(tmp_path: Path) -> None:
    setting, function, row = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (command,) = re.findall(r"```bash\n(.*?)\n```", PAGE, flags=re.DOTALL)
    solution = tmp_path / "solution"
    shutil.copy(ROOT / "SETTINGS.json", tmp_path)
    shutil.copytree(ROOT / "solution", solution, ignore=shutil.ignore_patterns("__pycache__"))
    config, objective = (
        solution / "motret/config/training.py",
        solution / "motret/training/objective.py",
    )
    insert(config, "class LossConfig", "    def ", setting + "\n")
    insert(objective, "@dataclass(frozen=True)\nclass LossSpec", "LOSS_TERMS", function + "\n\n")
    insert(objective, "LOSS_TERMS", ")", row)
    flags = helpers.train_flags(tmp_path, "run", fold=0, epochs=1)[1:]
    script = [sys.executable, *command.split()[1:]]
    done = subprocess.run(
        [*script, *flags], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "fold0" / "metrics.csv").open(newline="") as stream:
        (epoch,) = csv.DictReader(stream)
    weighted = float(epoch["loss_global"]) + 0.1 * float(epoch["loss_uniform"])
    assert float(epoch["loss_uniform"]) < 0
    assert float(epoch["train_loss"]) == pytest.approx(weighted, abs=1e-4)
    assert re.search(r"train loss \S+ \(global \S+, uniform -\S+\)", done.stdout)
