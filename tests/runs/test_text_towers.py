"""A run finds its text tower beside it, by the names that it recorded."""

from dataclasses import replace
from pathlib import Path

import pytest

import helpers
from motret.config.training import TextConfig
from motret.runs.run import Run
from motret.runs.text_towers import FOLDER, PackedTower, text_config, write_index


def run(folder: Path, **text: str) -> Run:
    opened = helpers.make_run(folder / "runs", helpers.config(), helpers.training_data())
    return replace(opened, config=replace(opened.config, text=TextConfig(**text)))


@pytest.mark.parametrize(
    ("recorded", "path", "expected"),
    [
        ({"text_tower": "hf:/home/me/minilm"}, "tower0", {"text_tower": "hf:{}/tower0"}),
        ({"text_tower": "hf:name/of-hub"}, "tower0", {"text_tower": "hf:{}/tower0"}),
        ({"text_weights": "openai"}, "t/a.safetensors", {"text_weights": "{}/t/a.safetensors"}),
        ({"text_tower": "my_text:Tower", "text_weights": "a"}, "t/a", {"text_weights": "{}/t/a"}),
    ],
)
def test_the_packed_tower_takes_the_place_of_the_recorded_one(
    tmp_path: Path, recorded: dict[str, str], path: str, expected: dict[str, str]
) -> None:
    opened, folder = run(tmp_path, **recorded), tmp_path / FOLDER
    text = opened.config.text
    assert text_config(opened) == text  # nothing is packed
    write_index(folder, [PackedTower("hf:another", "openai", "tower9")])
    assert text_config(opened) == text  # nothing of that name is
    write_index(folder, [PackedTower(text.text_tower, text.text_weights, path)])
    values = {name: value.format(folder) for name, value in expected.items()}
    assert text_config(opened) == replace(text, **values)
    assert opened.config.text == text  # the run itself stays as it was recorded
