"""Metadata as Kaggle's program takes it, and the commands that are printed."""

from pathlib import Path

import pytest

from motret.config.scripts import PackageConfig
from motret.errors import ConfigError
from motret.kaggle import metadata
from motret.kaggle.metadata import KaggleNames

NAMES = KaggleNames("me", "motions", "motret")


def slug(title: str) -> str:
    """The address that Kaggle makes of a title of plain words."""
    return title.lower().replace(" ", "-")


@pytest.mark.parametrize("kind", ["train", "infer"])
@pytest.mark.parametrize("name", ["motret", "our-two-words"])
def test_a_notebooks_title_makes_its_address(kind: str, name: str) -> None:
    names = KaggleNames("me", "motions", name)
    content = metadata.kernel_metadata(names, kind, "NvidiaL4", from_training=True)
    assert content["id"] == f"me/{slug(content['title'])}" == f"me/{name}-{kind}"


def test_only_training_has_internet_and_ranking_takes_its_output_if_told() -> None:
    train, infer, alone = (
        metadata.kernel_metadata(NAMES, kind, "NvidiaTeslaT4Highmem", from_training)
        for kind, from_training in (("train", True), ("infer", True), ("infer", False))
    )
    assert train["enable_internet"] and not infer["enable_internet"]
    assert (train["kernel_sources"], infer["kernel_sources"]) == ([], ["me/motret-train"])
    assert alone["kernel_sources"] == []
    for content in (train, infer):
        assert content["dataset_sources"] == ["me/motret-files"]
        assert content["competition_sources"] == ["motions"]
        assert content["machine_shape"] == "NvidiaTeslaT4Highmem" and content["is_private"]


def test_names_that_kaggle_refuses_are_refused_before(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given together"):
        PackageConfig(user="me")
    for name in ("Motret", "two words", "-a", "a--b"):
        with pytest.raises(ConfigError, match="--name"):
            PackageConfig(name=name)
    with pytest.raises(ConfigError, match="Kaggle takes 6 to 50"):
        KaggleNames.of(PackageConfig(user="me", competition="motions", name="a" * 45))
    assert KaggleNames.of(PackageConfig()) is None


def test_the_commands_train_only_where_no_runs_were_packed() -> None:
    without, with_training = (
        metadata.next_commands(NAMES, Path("work/kaggle"), from_training)[1::2]
        for from_training in (False, True)
    )
    assert [line for line in with_training if line not in without] == [
        "kaggle kernels push -p work/kaggle/train",
        "kaggle kernels status me/motret-train",
    ]
    assert [line for line in with_training if line in without] == without
