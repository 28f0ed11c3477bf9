"""The page on members made elsewhere: its snippet runs as it stands and what it writes is weighed by score."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import ensemble
import helpers

PAGE = Path(__file__).parents[2] / "docs" / "add_external_member.md"
pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")


def test_the_snippet_of_the_page_writes_a_member_that_the_ensemble_weighs(tmp_path, monkeypatch, capsys) -> None:
    assert helpers.run_training(tmp_path / "runs", "one", epochs=1) == 0
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    data = helpers.challenge()
    here = f'DataConfig(data_dir=Path("{data}"), work_dir=Path("{data}-work"), folds_dir=Path("{data}-folds"))'
    assert "DataConfig()" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("DataConfig()", here), {"Path": Path})
    with np.load("mine.npz", allow_pickle=False) as kept:
        assert kept["similarity"].shape == (36,) and {"oof0", "oof1", "folds"} <= set(kept.files)
    flags = [*helpers.places(), "--out_dir=runs", "--submissions_dir=subs", "--query_bank=off", "--views=none"]
    assert ensemble.main([*flags, "--members", "mine.npz"]) == 0
    (about,) = Path("subs").glob("*_cv*.json")
    members = {member["run"]: member for member in json.loads(about.read_text())["members"]}
    assert members.keys() == {"one", "mine.npz"} and 0 < members["mine.npz"]["local_score"]["mean"] < 1
