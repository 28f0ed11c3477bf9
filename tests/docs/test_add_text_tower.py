"""docs/add_text_tower.md does what it says."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import ensemble
import helpers
import sample
import train
from motret.config.training import TextConfig

PAGE = Path(__file__).parents[2] / "docs" / "add_text_tower.md"


def block(language: str, index: int = 0) -> str:
    """A code block of the page in this language, the first by default."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[
        index
    ]


def command_args() -> list[str]:
    """The arguments of the page's command after the script."""
    words = shlex.split(block("bash"))
    assert words[:2] == ["python", "solution/train.py"]
    return words[2:]


def test_the_file_and_the_command_of_the_page_train_and_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_text.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    size = ["--motions", "16", "--queries", "1", "--candidates", "12"]
    assert sample.main(["--out", str(tmp_path / "data"), *size]) == 0
    names = ("work_dir", "folds_dir", "out_dir")
    folders = [
        f"--data_dir={tmp_path / 'data'}",
        *(f"--{name}={tmp_path / name}" for name in names),
    ]
    small = ["--epochs=1", "--folds=2", "--jobs=1", "--text_width=32", "--run_name=words"]
    assert train.main([*command_args(), *folders, *small]) == 0
    assert "words: score" in capsys.readouterr().out
    checkpoint = next((tmp_path / "out_dir/words/fold0").glob("best_epoch*.pt"))
    weights = torch.load(checkpoint, weights_only=True)["model"]
    assert weights["text_tower.embedding.weight"].shape == (4096, 32)
    submissions = f"--submissions_dir={tmp_path / 'submissions'}"
    flags = ["--query_bank=off", "--views=none", "--jobs=1", submissions]
    assert ensemble.main([*folders, *flags]) == 1  # nothing that a run's files name is imported
    assert "--allow_towers my_text:HashedWords" in capsys.readouterr().err
    flags += ["--allow_towers", "my_text:HashedWords"]
    assert ensemble.main([*folders, *flags]) == 0
    assert (tmp_path / "submissions" / "submission.csv").is_file()


def test_the_try_in_a_minute_trains_and_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_text.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    mains = {"sample": sample.main, "train": train.main, "ensemble": ensemble.main}
    lines = block("bash", 1).replace("work/try", str(tmp_path)).splitlines()
    assert [Path(line.split()[1]).stem for line in lines] == list(mains)
    for line in lines:
        _, script, *arguments = shlex.split(line)
        assert mains[Path(script).stem](arguments) == 0
    assert (tmp_path / "submission.csv").is_file()


def test_pretrained_the_tower_of_the_page_is_embedded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"frozen_{tmp_path.name}".replace("-", "_")
    load = "torch.nn.init.constant_(self.embedding.weight, float(config.text_weights))"
    source = block("python").replace(
        "self.embedding = nn.Embedding(self.buckets, self.dim)\n",
        f"self.embedding = nn.Embedding(self.buckets, self.dim)\n        {load}\n",
    )
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    tower = {"text_tower": f"{module}:HashedWords", "text_weights": "0.5"}
    values = {"work_dir": tmp_path / "work", "fold": 0, "epochs": 1}
    assert helpers.run_training(tmp_path, "run", **tower, **values) == 0
    assert len(list((tmp_path / "work" / "text").glob("*.npy"))) == 1
    checkpoint = next((tmp_path / "run/fold0").glob("best_epoch*.pt"))
    weights = torch.load(checkpoint, weights_only=True)["model"]
    assert not any(name.startswith("text_tower.") for name in weights)


TOWER = """
import torch
from motret.models.text_tower import TextTower

class Words(TextTower):
    def __init__(self, config):
        super().__init__()
        {init}

    def tokenize(self, captions):
        return torch.zeros(len(captions), 3, dtype=torch.long), torch.full((len(captions),), 3)

    def forward(self, ids, lengths):
        return {output}

class Other(torch.nn.Module):
    pass
"""
ZEROS = "torch.zeros(len(ids), 6)"


@pytest.mark.parametrize(
    ("name", "init", "output", "message"),
    [
        ("Words", "pass", ZEROS, "returns (2, 6) for 2 captions, and its dim is None (return a"),
        ("Words", "self.dim = 7", ZEROS, "returns (2, 6) for 2 captions, and its dim is 7"),
        ("Words", "self.dim = 6", "ids", "returns (2, 3) for 2 captions, and its dim is 6"),
        ("Words", "self.dim = 6", f"[{ZEROS}]", "returns a list, and its dim is 6"),
        ("Wrods", "self.dim = 6", ZEROS, "no Wrods in "),
        ("Other", "self.dim = 6", ZEROS, "Other is no TextTower (its towers: Words)"),
    ],
)
def test_a_tower_that_does_not_fit_is_one_line_and_leaves_no_run(
    tmp_path, monkeypatch, capsys, name, init, output, message
):
    module = tmp_path.name
    (tmp_path / f"{module}.py").write_text(TOWER.format(init=init, output=output))
    monkeypatch.syspath_prepend(tmp_path)
    tower = {"text_tower": f"{module}:{name}", "text_weights": "none"}
    assert helpers.run_training(tmp_path, "run", **tower) == 1
    error = capsys.readouterr().err.splitlines()[-1]  # after the bar of packing
    assert error.startswith("error: --text_tower: ") and message in error
    assert not (tmp_path / "run").exists()
    if name == "Wrods":
        assert "its towers: Words" in error


def test_a_tower_that_reads_the_padding_is_refused_before_training(tmp_path, monkeypatch, capsys):
    module = tmp_path.name
    source = block("python").replace(
        "return masked_mean(self.embedding(ids), lengths)", "return self.embedding(ids).mean(dim=1)"
    )
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    tower = {"text_tower": f"{module}:HashedWords", "text_weights": "none"}
    assert helpers.run_training(tmp_path, "run", **tower) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        f"error: --text_tower: {module}:HashedWords: padding changes the vector"
    )
    assert not (tmp_path / "run").exists()


def test_the_settings_that_the_page_lists_are_those_of_a_text_tower():
    listed = re.search(r"`TextConfig`.*?: (.*?)\. ", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert listed is not None
    names = re.findall(r"`(\w+)`", listed[1])
    assert names and set(names) <= {item.name for item in fields(TextConfig)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_tower": "no_such_file:Tower", "text_weights": "none"}, "No module named"),
        (
            {"text_tower": "motret.models.hf_tower:HfTower", "text_weights": "openai"},
            "--text_weights: openai is a tag of open_clip",
        ),
        (
            {"text_tower": "a:B", "text_weights": "none", "text_activation": "gelu"},
            "--text_activation: is gelu, which is for open_clip models alone",
        ),
    ],
)
def test_flags_that_do_not_fit_a_class_are_one_line(tmp_path, capsys, values, message):
    assert helpers.run_training(tmp_path, "run", **values) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
