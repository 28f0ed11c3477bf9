"""Groups of settings: names, defaults, and built again from their values."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from motret.config import base, scripts, training
from motret.config.base import DataConfig, MachineConfig

KINDS = [
    training.TrainConfig,
    scripts.PrepareConfig,
    scripts.FoldConfig,
    scripts.EnsembleConfig,
    scripts.OofConfig,
    scripts.SubmissionConfig,
    scripts.ValidationQueriesConfig,
    scripts.SampleConfig,
]


def leaves(kind: type) -> list[str]:
    names = []
    for item in fields(kind):
        value = base.field_default(item)
        names += leaves(type(value)) if is_dataclass(value) else [item.name]
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_flags_are_unique_over_the_groups(kind: type) -> None:
    names = leaves(kind)
    assert len(names) == len(set(names)) and set(names) == set(base.flag_defaults(kind))


@pytest.mark.parametrize(
    "kind", [training.TrainConfig, scripts.EnsembleConfig, scripts.ValidationQueriesConfig]
)
def test_settings_built_from_their_own_values_are_the_same(kind: type) -> None:
    changed = base.build_config(kind, {"data_dir": Path("elsewhere"), "seed": 5, "fps": 25.0})
    assert (changed.data, changed.machine) == (
        DataConfig(data_dir=Path("elsewhere"), fps=25.0),
        MachineConfig(seed=5),
    )
    assert base.build_config(kind, base.flatten(changed)) == changed != base.build_config(kind, {})


def test_default_paths_are_those_of_settings_json_seen_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "SETTINGS.json").write_text(
        '{"data_dir": "input/motions", "work_dir": "work", "folds_dir": "folds"}'
    )
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert DataConfig().data_dir == Path("input/motions")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert DataConfig().data_dir == tmp_path / "input" / "motions"
