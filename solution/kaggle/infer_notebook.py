# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Infer: from trained runs to a submission, without internet
#
# 1. *Add Input*: the competition, and the output of `train.ipynb` or the dataset that `python solution/package.py` makes. Several may be attached: all their runs take part.
# 2. *Settings*: internet off. A GPU makes it faster.
# 3. *Save Version*, *Save & Run All*, then submit `submission.csv` from the output.
#
# Nothing is trained. Every fold of every attached run ranks the candidates. All files are written under `/kaggle/working`.

# %% tags=["parameters"]
KAGGLE_INPUT = "/kaggle/input"
KAGGLE_WORKING = "/kaggle/working"
DATA_DIR = ""  # the competition's folder; empty: the one that is attached
FLAGS = ""  # any flags of ensemble.py, such as "--candidate_format name --views none"
EXTRA_PACKAGES = []  # packages that towers of your own need

# %% [markdown]
# ## The code, the data and the runs

# %%
import shlex
import shutil
import sys
import types
from pathlib import Path


class NotebookError(Exception):
    """An error that the notebook shows as one line."""

    def _render_traceback_(self):
        return [f"error: {self}"]


root, working = Path(KAGGLE_INPUT), Path(KAGGLE_WORKING)
attached = (
    path.parents[2]
    for depth in range(8)
    for path in sorted(root.glob("*/" * depth + "solution/motret/errors.py"))
)
code = next(attached, None)
if code is None:
    raise NotebookError(
        f"{root}: no copy of the code is attached (attach the output of the training notebook, "
        "or the dataset that `python solution/package.py` makes)"
    )
# importing motret itself checks for all packages, and those that are missing are installed below
sys.modules["motret"] = types.ModuleType("motret")
sys.modules["motret"].__path__ = [str(code / "solution" / "motret")]
sys.dont_write_bytecode = True

from motret.kaggle import packages
from motret.kaggle.inputs import find_inputs
from motret.kaggle.session import Session

here = Session(code, working)
here.set_up()
inputs = find_inputs(root)
data_dir = Path(DATA_DIR) if DATA_DIR else inputs.competition()
runs, folds_dir = inputs.finished_runs(), inputs.folds_of_runs()
print(f"code {code}\ndata {data_dir}\nruns", *runs, sep="\n")

# %% [markdown]
# ## Packages
#
# What the image has stays as it is. What is missing is installed from attached wheels.

# %%
missing = packages.install_missing(here, inputs.wheels, EXTRA_PACKAGES)
print(f"installed: {', '.join(missing)}" if missing else "nothing is missing")

# %% [markdown]
# ## The submission
#
# The runs are read where they lie. Weights of the ensemble are fitted on held-out motions; then each model ranks the candidates.

# %%
submission = working / "submission.csv"
flags = [f"--data_dir={data_dir}", f"--folds_dir={folds_dir}", f"--out={submission}"]
flags += here.folder_flags("work_dir", "submissions_dir")
here.run_script("ensemble.py", *flags, *shlex.split(FLAGS), "--runs", *runs)

# %% [markdown]
# ## Its form

# %%
here.run_script("validate.py", "submission", submission, f"--data_dir={data_dir}")
print(*submission.read_text().splitlines()[:4], sep="\n")
shutil.rmtree(here.cache_dir)
shutil.rmtree(working / "work")
print(f"done in {here.elapsed()}: {submission}")
