"""What Kaggle's command-line program reads: metadata of the dataset and the notebooks, commands.

Fields and limits are those of the program's version 2.2.5. A notebook is pushed from a folder of
its own with kernel-metadata.json; a dataset is created from a folder with dataset-metadata.json,
whose folders are uploaded as archives (--dir-mode zip), which Kaggle opens again.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motret.config.scripts import PackageConfig
from motret.errors import ConfigError

ANSWER_DIR = "work/answer"
"""Folder that the answer of the second notebook is fetched into."""
MIN_DATASET_NAME, MAX_DATASET_NAME = 6, 50
"""Characters in the name and in the title of a dataset."""


@dataclass(frozen=True)
class KaggleNames:
    """The names on Kaggle that a package is made for."""

    user: str
    competition: str
    name: str

    @staticmethod
    def of(config: PackageConfig) -> "KaggleNames | None":
        """Those that the settings give; None where they name no user. ConfigError if too long."""
        if config.user is None or config.competition is None:
            return None
        names = KaggleNames(config.user, config.competition, config.name)
        length = len(names.dataset_title)
        if not MIN_DATASET_NAME <= length <= MAX_DATASET_NAME:
            problem = f"makes a dataset's name of {length} characters"
            fix = f"Kaggle takes {MIN_DATASET_NAME} to {MAX_DATASET_NAME}; give a shorter one"
            raise ConfigError("--name", problem, fix)
        return names

    @property
    def dataset_title(self) -> str:
        return f"{self.name}-files"

    @property
    def dataset(self) -> str:
        return f"{self.user}/{self.dataset_title}"

    def notebook(self, kind: str) -> str:
        """The name of a notebook: `train` or `infer`."""
        return f"{self.user}/{self.name}-{kind}"


def dataset_metadata(names: KaggleNames) -> dict[str, Any]:
    """The content of dataset-metadata.json. The dataset is private unless it is created public."""
    return {"title": names.dataset_title, "id": names.dataset, "licenses": [{"name": "other"}]}


def kernel_metadata(
    names: KaggleNames, kind: str, accelerator: str, from_training: bool
) -> dict[str, Any]:
    """The content of kernel-metadata.json of the notebook `train` or `infer`.

    from_training: whether `infer` takes the runs from the output of `train`.
    """
    trains = kind == "train"
    return {
        "id": names.notebook(kind),
        "title": f"{names.name} {kind}".replace("-", " "),
        "code_file": f"{kind}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": trains,
        "machine_shape": accelerator,
        "dataset_sources": [names.dataset],
        "competition_sources": [names.competition],
        "kernel_sources": [names.notebook("train")] if from_training and not trains else [],
        "model_sources": [],
    }


def next_commands(names: KaggleNames, out: Path, from_training: bool) -> list[str]:
    """The commands from the package in `out` to a submission, with what each is for."""
    folder = {name: shlex.quote(str(out / name)) for name in ("dataset", "train", "infer")}
    infer = names.notebook("infer")
    training = [
        ("train on Kaggle", f"kaggle kernels push -p {folder['train']}"),
        ("until it says complete", f"kaggle kernels status {names.notebook('train')}"),
    ]
    fetch = f"-p {ANSWER_DIR} --file-pattern '^submission' -o"
    submit = f"kaggle competitions submit -c {names.competition} -m {names.name}"
    steps = [
        ("once", f"kaggle datasets create -p {folder['dataset']} --dir-mode zip"),
        (
            "later, instead",
            f"kaggle datasets version -p {folder['dataset']} --dir-mode zip -m update",
        ),
        ("until it says ready", f"kaggle datasets status {names.dataset}"),
        *(training if from_training else []),
        ("rank the candidates", f"kaggle kernels push -p {folder['infer']}"),
        ("until it says complete", f"kaggle kernels status {infer}"),
        ("fetch the answer", f"kaggle kernels output {infer} {fetch}"),
        ("submit the file", f"{submit} -f {ANSWER_DIR}/submission.csv"),
        (
            "or, where notebooks are submitted, the newest version",
            f"{submit} -k {infer} -v 1 -f submission.csv",
        ),
    ]
    return [line for note, command in steps for line in (f"# {note}", command)]
