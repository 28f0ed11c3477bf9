"""docs/add_external_member.md: its script runs, and the ensemble weighs what it writes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import ensemble
import helpers

PAGE = Path(__file__).parents[2] / "docs" / "add_external_member.md"
pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")


def test_the_script_of_the_page_writes_a_member_that_the_ensemble_weighs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert helpers.run_training(tmp_path / "runs", "one", epochs=1) == 0
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert "DataConfig()" in code
    data = helpers.challenge()
    folders = {"data_dir": data, "work_dir": f"{data}-work", "folds_dir": f"{data}-folds"}
    settings = ", ".join(f'{name}=Path("{folder}")' for name, folder in folders.items())
    monkeypatch.chdir(tmp_path)
    exec(code.replace("DataConfig()", f"DataConfig({settings})"), {"Path": Path})
    with np.load("mine.npz", allow_pickle=False) as arrays:
        assert arrays["similarity"].shape == (36,)
        assert {"oof0", "oof1", "folds"} <= set(arrays.files)
    flags = [*helpers.places(), "--out_dir=runs", "--submissions_dir=subs"]
    choices = ["--query_bank=off", "--views=none", "--members", "mine.npz"]
    assert ensemble.main([*flags, *choices]) == 0
    (about,) = Path("subs").glob("*_cv*.json")
    members = {member["run"]: member for member in json.loads(about.read_text())["members"]}
    assert members.keys() == {"one", "mine.npz"}
    assert 0 < members["mine.npz"]["local_score"]["mean"] < 1
