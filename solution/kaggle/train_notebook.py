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
# # Train: from the competition's data to trained models and a submission
#
# 1. *Add Input*: the competition, and the dataset that `python solution/package.py` makes (the code, and the packages that this image lacks). Without that dataset turn the internet on and set `REPOSITORY` below.
# 2. *Settings*: accelerator GPU T4 x2, or another GPU.
# 3. *Save Version*, *Save & Run All*.
#
# It ends with `/kaggle/working/submission.csv`, and with everything that the notebook `infer.ipynb` needs in `/kaggle/working/package/`. All files are written under `/kaggle/working`.

# %% tags=["parameters"]
KAGGLE_INPUT = "/kaggle/input"
KAGGLE_WORKING = "/kaggle/working"
DATA_DIR = ""  # the competition's folder; empty: the one that is attached
REPOSITORY = ""  # address of your clone, for where no attached dataset has the code
PRESET = "full"  # "fast": small models in minutes, for a first try
VARIANTS = []  # such as ["holistic", "sgar"]; empty: those of the preset
FLAGS = ""  # any flags of run_all.sh, such as "--seeds 0 1 --max_minutes 30 --tuned none"
EXTRA_PACKAGES = []  # packages that towers of your own need

# %% [markdown]
# ## The code and the data

# %%
import shlex
import shutil
import subprocess
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
if code is None and REPOSITORY:
    clone = working / "code"
    if not clone.is_dir():
        subprocess.run(["git", "clone", "--quiet", "--depth=1", REPOSITORY, clone], check=False)
    code = clone if (clone / "solution").is_dir() else None
if code is None:
    raise NotebookError(
        f"{root}: no copy of the code is attached, and none could be cloned from "
        f"REPOSITORY = {REPOSITORY!r} (attach the dataset that `python solution/package.py` makes, "
        "or turn the internet on and set REPOSITORY)"
    )
# importing motret itself checks for all packages, and those that are missing are installed below
sys.modules["motret"] = types.ModuleType("motret")
sys.modules["motret"].__path__ = [str(code / "solution" / "motret")]
sys.dont_write_bytecode = True

from motret.kaggle import display, packages
from motret.kaggle.inputs import find_inputs
from motret.kaggle.session import Session

here = Session(code, working)
here.set_up()
inputs = find_inputs(root)
data_dir = Path(DATA_DIR) if DATA_DIR else inputs.competition()
print(f"code {code}\ndata {data_dir}")

# %% [markdown]
# ## Packages
#
# What the image has stays as it is, torch above all. Only what is missing is installed: from attached wheels, otherwise from the internet.

# %%
missing = packages.install_missing(here, inputs.wheels, EXTRA_PACKAGES)
print(f"installed: {', '.join(missing)}" if missing else "nothing is missing")

# %% [markdown]
# ## Training
#
# `run_all.py` checks the data and makes folds. Before the training it prints the device, the precision, and the time and memory that it takes. Then it trains every fold on all cards, ranks the candidates, and checks the submission.

# %%
flags = [f"--data_dir={data_dir}", f"--preset={PRESET}", *here.folder_flags()]
if VARIANTS:
    flags += ["--variants", *VARIANTS]
flags += inputs.text_tower_flags(PRESET, FLAGS)
submission = working / "submission.csv"
here.run_script("run_all.py", *flags, f"--out={submission}", *shlex.split(FLAGS))

# %% [markdown]
# ## Curves
#
# Each line is a fold; the score is measured on motions that the fold's model has not seen.

# %%
display.show_figures(sorted(working.glob("runs/*/report/curves.png")))

# %% [markdown]
# ## Errors
#
# Queries and their ranked candidates as moving figures: first what the submission ranks, then what a model does on motions that it has not seen, the matching one marked. The output has such a page of each run.

# %%
pages = sorted(working.glob("runs/*/report/index.html"))
for page in [working / "submissions" / "report" / "index.html", *pages[:1]]:
    if page.is_file():  # without a test folder there is no submission
        print(page.relative_to(working))
        display.show_page(page)
print(*(page.relative_to(working) for page in pages[1:]), sep="\n")

# %% [markdown]
# ## What the next notebook needs
#
# Runs, folds, code and text towers in one folder. Attach this notebook's output to `infer.ipynb`, or make a dataset of it. A notebook that trains a share of the models (`--task`) leaves them in `runs/` for the one that ranks.

# %%
flags = [f"--out={working / 'package'}", *here.folder_flags("out_dir", "folds_dir")]
if inputs.wheels:  # attach the same dataset to the next notebook
    flags.append("--no-wheels")
else:
    flags.append(f"--python_version={sys.version_info.major}.{sys.version_info.minor}")
    flags += ["--extra_packages", *EXTRA_PACKAGES] if EXTRA_PACKAGES else []
# towers of your own, module:Class, are opened only where they are named
classes = [word for word in shlex.split(FLAGS) if ":" in word and not word.startswith("hf:")]
flags += ["--allow_towers", *classes] if classes else []
if "--task" not in FLAGS:
    here.run_script("package.py", *flags)
shutil.rmtree(here.cache_dir)
shutil.rmtree(working / "work")
print(f"done in {here.elapsed()}")
