"""The settings of every script, every variant and every preset: frozen dataclasses whose fields are the flags, and two tables.

A value comes from the first of: a flag, a tuned value, the preset, the variant, the default written here. Default paths stand
in SETTINGS.json alone. What a model is and how it learns is set by the groups in `settings`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import tyro

from motret.faults import SettingFault
from motret.settings import (
    AugmentSettings,
    FitSettings,
    LossSettings,
    MotionSettings,
    PartSettings,
    SnapshotSettings,
    TextSettings,
    above_zero,
    at_least,
    some_processes,
)

ROOT = Path(__file__).resolve().parents[2]
"""The repository: paths in SETTINGS.json are relative to it, paths in flags to the current folder."""


WRITTEN_FOLDERS = ("work_dir", "folds_dir", "out_dir", "submissions_dir")
"""Names of the folders that scripts write to."""
NOT_MODEL = {
    "fold",
    "prefer_txt_split",
    "run_name",
    "resume",
    "out_dir",
    "data_dir",
    "work_dir",
    "folds_dir",
    "device",
    "jobs",
    "debug",
    "strict",
    "preset",
    "folds",
    "fold_seed",
    "fold_jobs",
    "joblib_backend",
    "tuned",
    "save_attention",
    "attn_interval",
    "run_qualitative",
    "qualitative_interval",
    "save_every",
    "save_halves",
}
"""Settings of a run that say where and when, not what is learned: it may be resumed with others."""


def relative(path: Path) -> Path:
    """A path as one would type it: relative to the current folder where it lies in it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def default_path(name: str) -> Path:
    """A path that SETTINGS.json lists."""
    return relative(ROOT / json.loads((ROOT / "SETTINGS.json").read_text(encoding="utf-8"))[name])


def sample_dir() -> Path:
    """Where the generated challenge is."""
    return default_path("work_dir") / "sample"


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where things are, and how raw motions are read."""

    data_dir: Path = field(default_factory=partial(default_path, "data_dir"))
    """The competition's data: motions/, texts/, train.txt, test/; or split_joints/ and texts/gar_train.json."""
    work_dir: Path = field(default_factory=partial(default_path, "work_dir"))
    """Packed features and text embeddings; may be deleted at any time."""
    folds_dir: Path = field(default_factory=partial(default_path, "folds_dir"))
    """Where folds.csv and folds.json are."""
    id_width: int | None = None
    """Digits of numeric ids; read off the file names unless given."""
    fps: float = 30.0
    """Frames a second of the raw motions."""
    min_frames: int = 6
    """Shorter motions are left out of the training; in the test their last frame is held."""
    rotations: bool = True
    """Whether joint rotations are among the features."""
    strict: bool = False
    """Stop at the first fault in a file instead of leaving it out of the training, or repairing it or ranking it last in the test."""

    def __post_init__(self) -> None:
        at_least(self, 1, "min_frames")
        above_zero(self, "fps")


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """What to run on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    seed: int = 0
    """Every random choice follows from it, but for the folds (--fold_seed)."""
    jobs: int = -1
    """Threads that pack motions, and processes that derive part texts from them; -1: one per core."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        some_processes(self, "jobs")
        if not 0 <= self.seed < 2**32:
            raise SettingFault("--seed", f"is {self.seed}", "give a whole number from 0 to 4294967295")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """All settings of a run."""

    variant: tyro.conf.Positional[str] = "holistic"
    """Which model: a name from the table of variants."""
    preset: Literal["fast", "full"] | None = None
    """A table of defaults: fast for a laptop, full for a GPU and the competition's data."""
    fold: str = "all"
    """Which fold to hold out: a number, all (one model per fold), or full (nothing held out)."""
    folds: int = 5
    """Number of folds, where they are not made yet; where gar_val.json is the validation set, only by this flag."""
    fold_seed: int = 0
    """What the folds are drawn by, where they are not made yet."""
    prefer_txt_split: bool = False
    """One split instead of folds, by train.txt and val.txt, else gar_train.json and gar_val.json: fold 0 holds out the second list."""
    fold_jobs: int = 1
    """Folds trained side by side, each in a process of its own with its share of the threads; -1: one per core."""
    joblib_backend: str = "loky"
    """What runs the folds side by side: loky, multiprocessing, or any other backend that joblib knows, but threads of one process."""
    tuned: str = "none"
    """Values of tune.py to take, if they are of this data, folds, preset and text tower: auto (those in --out_dir), none, or a file."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Where run folders go."""
    run_name: str | None = None
    """Name of the run folder; by default the variant and the time."""
    resume: str | None = None
    """Go on with a run, by the settings in its args.json: its folder, or auto for the one of this --run_name (without one: the newest
    with the same settings). More --epochs or --max_minutes train finished folds further, on the schedule of the new length. A
    checkpoint file: its fold goes on from there. same: auto, but a run of this name with other data or settings is renamed and a new one
    begins."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)
    motion: tyro.conf.OmitArgPrefixes[MotionSettings] = field(default_factory=MotionSettings)
    text: tyro.conf.OmitArgPrefixes[TextSettings] = field(default_factory=TextSettings)
    loss: tyro.conf.OmitArgPrefixes[LossSettings] = field(default_factory=LossSettings)
    parts: tyro.conf.OmitArgPrefixes[PartSettings] = field(default_factory=PartSettings)
    augment: tyro.conf.OmitArgPrefixes[AugmentSettings] = field(default_factory=AugmentSettings)
    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)
    snapshots: tyro.conf.OmitArgPrefixes[SnapshotSettings] = field(default_factory=SnapshotSettings)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise SettingFault("train.py", f"no variant is called {self.variant!r}", f"choose from {', '.join(VARIANTS)}")
        if self.fold not in ("all", "full") and not self.fold.isdecimal():
            raise SettingFault("--fold", f"{self.fold!r} is no fold", "give a number, all or full")
        if self.augment.mirror and self.motion.features == "raw":
            raise SettingFault("--mirror", "raw columns are not mirrored", "take --features canonical, or give --mirror 0")
        if self.parts.use_gar and self.motion.features == "raw":
            raise SettingFault("--features", "raw columns have no parts", "take --features canonical, or leave out --use_gar")
        some_processes(self, "fold_jobs")


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """Searches for settings of variants. Every flag of train.py is taken too: a setting that a flag gives is not searched."""

    variants: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which models; by default those of the preset."""
    preset: Literal["fast", "full"] | None = None
    """A table of defaults: fast for a laptop, full for a GPU and the competition's data."""
    trials: int = 30
    """Trials of a variant, earlier calls included; a second call goes on up to it."""
    max_minutes: float | None = None
    """Time for all variants together, earlier calls included; no trial begins that would not fit, with the confirmation after it, at
    the pace so far."""
    tune_folds: int = 1
    """Folds that a trial trains and is scored on, the first ones."""
    confirm_folds: int = 2
    """Folds after those on which the default and the best trials, up to three, are trained to confirm them. Values are adopted only if
    they are better there by more than two standard errors, more for several."""
    trial_epochs: int = 6
    """Epochs of a trial, where training would take more."""
    search: str | None = None
    """Settings to search, separated by commas; by default the whole table of the variant (solution/motret/search_space.py)."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials end early, by their score after each epoch."""
    storage: str | None = None
    """Where the study is kept: any Optuna URL, such as postgresql://...; by default a journal file in the folder of the results."""
    jobs: int = 1
    """Trials side by side, each in a process of its own with its share of the threads; -1: one per core."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Results go to tune/<variant>/ in it."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        at_least(self, 1, "trials", "tune_folds", "confirm_folds", "trial_epochs")
        if unknown := sorted(set(self.variants) - set(VARIANTS)):
            raise SettingFault("tune.py", f"no variant is called {unknown[0]!r}", f"choose from {', '.join(VARIANTS)}")
        some_processes(self, "jobs")
        above_zero(self, "max_minutes")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Checks and packs the data."""

    describe_parts: bool = False
    """Also write what each body part does in each training motion, derived from the motion, as GAR JSON to work/gar_described.json."""
    export_split_joints: tuple[Path, ...] | None = None
    """Also write the training motions in the layout of the SGAR description; a folder may follow, else work/split_joints."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        if len(self.export_split_joints or ()) > 1:
            raise SettingFault("--export_split_joints", f"names {len(self.export_split_joints)} folders", "give one")


@dataclass(frozen=True, kw_only=True)
class FoldSettings:
    """Splits the training motions into folds."""

    folds: int | None = None
    """Number of folds, by default 5; or none but gar_val.json held out, in the layout of the SGAR description, where it is there."""
    fold_seed: int = 0
    """What the folds are drawn by."""
    prefer_txt_split: bool = False
    """One split instead of folds, by train.txt and val.txt, else gar_train.json and gar_val.json: fold 0 holds out the second list."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)


VIEWS = ("mirror", "speed", "swap")
"""Kinds of test-time views."""


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings:
    """Weighs runs by what they earn out of fold, ranks the candidates and writes the submission."""

    runs: tuple[str, ...] = ()
    """Run folders that take part (a path, or a name inside --out_dir); by default every finished run of this data."""
    members: tuple[Path, ...] = ()
    """Members made elsewhere: FILE.csv, ranks like a submission; FILE.npz, arrays query, candidate, similarity as kept beside one.
    To be weighed by score an .npz also holds oof0, oof1, ... (captions x held-out motions of a fold) and folds (the hash in folds.json)."""
    member_weight: tuple[float, ...] = ()
    """Weight of each of --members without out-of-fold part, which no score can weigh: its share of the mean, below 1 in all."""
    weights: Literal["auto", "equal"] = "auto"
    """auto: by the out-of-fold score, equal ones where that gains no more than its error."""
    query_bank: Literal["auto", "off"] = "auto"
    """Query-bank normalisation by the training captions; auto: where it gains more than its error out of fold."""
    views: str = "auto"
    """Further views of the motions that are asked for, parted by commas: mirror (captions too), speed, swap (of the persons), or none;
    auto: those that gain more than their error out of fold."""
    fold: int | None = None
    """Use the models of this fold alone, weighed on the others; by default those of all folds."""
    test_dir: Path | None = None
    """Folder of queries to rank; by default test/ in the data folder."""
    out: Path | None = None
    """Where the submission goes; by default submissions/submission.csv (of validation queries ranked.csv beside them)."""
    top_k: int = 10
    """Candidates written for each query."""
    candidate_format: Literal["int", "name"] = "int"
    """How a candidate is written: 7, or motion_7."""
    part_weight: float | Literal["auto"] = 0.0
    """So many times the similarity of the parts that a query names is added, by runs that know parts; auto: what is best out of fold, on
    all folds, so that a score with it flatters itself a little."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Where run folders are."""
    submissions_dir: Path = field(default_factory=partial(default_path, "submissions_dir"))
    """Where submissions and their log go."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        at_least(self, 1, "top_k")
        if not all(0 < share < 1 for share in self.member_weight) or sum(self.member_weight) >= 1:
            raise SettingFault("--member_weight", "are shares of a mean", "give numbers above 0 that sum to less than 1")
        if self.views not in ("auto", "none") and (unknown := [view for view in self.views.split(",") if view not in VIEWS]):
            raise SettingFault("--views", f"there is no view {unknown[0]!r}", f"give auto, none, or some of {','.join(VIEWS)}")


@dataclass(frozen=True, kw_only=True)
class OofSettings:
    """Scores runs on the motions they had not seen."""

    runs: tuple[str, ...] = ()
    """Run folders (a path, or a name inside --out_dir); by default every run of this data with a finished fold."""
    verbose: bool = False
    """Also each fold, plain recalls in both directions, and what it is worth to choose each fold's epoch by its score."""
    against: str | None = None
    """Tell differences to this run; by default to the best one. They are paired by motion, with the standard error of the difference."""
    part_weight: float | Literal["auto"] = 0.0
    """So many times the similarity of the parts that a caption names is added, by runs that know parts; auto: what is best out of fold."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Where run folders are."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)


@dataclass(frozen=True, kw_only=True)
class SubmissionSettings:
    """Checks a submission's form, and scores it where the right answers are known."""

    file: tyro.conf.Positional[Path]
    """The submission."""
    gt: Path | None = None
    """The right answers (query_id,candidate); by default gt.csv in the test folder, where there is one."""
    test_dir: Path | None = None
    """The folder of queries it answers; by default test/ in the data folder."""
    data_dir: Path = field(default_factory=partial(default_path, "data_dir"))
    """The competition's data."""
    top_k: int = 10
    """Candidates that each query must be given."""
    verbose: bool = False
    """Also recall at each k."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class RecordSettings:
    """Writes down what the leaderboard said of a submission."""

    file: tyro.conf.Positional[Path]
    """The submission: one that is kept, by path or name, or a copy of it."""
    public_score: tyro.conf.Positional[float]
    """The leaderboard's score."""
    submissions_dir: Path = field(default_factory=partial(default_path, "submissions_dir"))
    """Where submissions and their log are."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Says how far two submissions differ."""

    first: tyro.conf.Positional[Path]
    """A submission."""
    second: tyro.conf.Positional[Path]
    """Another one of the same queries."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Draws what runs learned, into the report/ folder of each."""

    run: tuple[str, ...] = ()
    """Run folders (a path, or a name inside --out_dir); by default those of the latest submission, else every run with a finished fold."""
    fold: int | None = None
    """Draw attention and analysis of this fold; by default of the first finished one. The curves and the page are of all folds."""
    all_folds: bool = False
    """Draw attention and analysis of every finished fold."""
    attn_layer: int = -1
    """Layer whose attention is drawn, counted from 0, or from the last one backwards: -1."""
    pairs: int = 200
    """Pairs of text and motion in the t-SNE picture."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Where run folders are."""
    submissions_dir: Path = field(default_factory=partial(default_path, "submissions_dir"))
    """Where submissions and their log are."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        at_least(self, 3, "pairs")
        if self.all_folds and self.fold is not None:
            raise SettingFault("--all_folds", f"draws every fold, and --fold {self.fold} one", "leave one of them out")


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Ranks motions by how well they fit a text, and draws them on a page."""

    text: tyro.conf.Positional[str] = "two people hug, then one walks away"
    """What happens in the motion that is looked for."""
    gallery: str = "train"
    """Motions to search: train (each by a model that has not seen it), test (all candidates), or a folder of .npy motions."""
    top: int = 12
    """Motions to show."""
    run: str | None = None
    """Run folder (a path, or a name inside --out_dir); by default the one that finished last."""
    out: Path | None = None
    """The page to write; by default report/search.html in the run's folder."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Where run folders are."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        at_least(self, 1, "top")
        if not self.text.strip():
            raise SettingFault("search.py", "the text is empty", 'say what happens: python solution/search.py "two people shake hands"')


@dataclass(frozen=True, kw_only=True)
class BatchesSettings:
    """Draws validation batches in the test's own layout, with gt.csv, from held-out motions."""

    fold: int = 0
    """The fold from whose held-out motions queries are drawn."""
    queries: int = 30
    """Number of queries."""
    candidates: int = 32
    """Motions of each query."""
    out: Path | None = None
    """Folder to write; by default val/ in the data folder."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What a sample depends on."""

    motions: int = 300
    """Training motions."""
    queries: int = 30
    """Test queries."""
    candidates: int = 32
    """Candidate motions of each query."""
    seed: int = 0
    """Of everything drawn: the same seed gives the same files."""
    fps: float = 30.0
    """Frames a second."""

    def __post_init__(self) -> None:
        at_least(self, 1, "motions", "queries")
        for name, low in (("candidates", 2), ("seed", 0), ("fps", 5)):
            at_least(self, low, name)
        if self.motions > 99_999:
            raise SettingFault("--motions", f"is {self.motions}", "an id has five digits")


@dataclass(frozen=True, kw_only=True)
class SampleSettings(SceneSettings):
    """Writes a generated challenge."""

    out: Path = field(default_factory=sample_dir)
    """Folder to write; an older sample in it is replaced, anything else is left alone."""
    force: bool = False
    """Make the sample anew even if the same one is there."""
    debug: bool = False
    """Show the traceback of an error."""


BenchPart = Literal["throughput", "time_to_score", "inference", "preparation", "memory", "validation"]


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Measures how near the machine's own limit things run."""

    only: tuple[BenchPart, ...] = get_args(BenchPart)
    """Parts to measure."""
    quick: bool = False
    """Tiny sizes, to see that everything runs: the readings mean nothing."""
    target: float = 0.70
    """True score at which time to score ends."""
    rival: str | None = None
    """A command that trains and ranks, its true score put beside ours at its wall time; {data} and {out} in it: a folder and a csv."""
    out: Path | None = None
    """The page to write; by default docs/benchmarks.md."""
    data: tyro.conf.OmitArgPrefixes[DataSettings] = field(default_factory=DataSettings)
    machine: tyro.conf.OmitArgPrefixes[MachineSettings] = field(default_factory=MachineSettings)
    motion: tyro.conf.OmitArgPrefixes[MotionSettings] = field(default_factory=MotionSettings)
    text: tyro.conf.OmitArgPrefixes[TextSettings] = field(default_factory=TextSettings)
    augment: tyro.conf.OmitArgPrefixes[AugmentSettings] = field(default_factory=AugmentSettings)
    fit: tyro.conf.OmitArgPrefixes[FitSettings] = field(default_factory=FitSettings)


@dataclass(frozen=True)
class Preset:
    """Defaults for a kind of machine and data."""

    variants: tuple[str, ...]
    """What run_all.sh trains."""
    values: Mapping[str, Any]
    """Settings by name."""
    tuning: Mapping[str, Any]
    """Settings of tune.py by name."""
    by_variant: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings that hold for one variant alone, by its name."""
    ensemble: Mapping[str, str] = field(default_factory=dict)
    """Flags of ensemble.py by name, which run_all.sh gives it."""
    side_by_side: bool = False
    """Whether run_all.sh trains models side by side, one for each core: small ones leave cores idle."""
    tuned_variants: int | None = None
    """How many of the variants are tuned, the first ones; None: all."""

    def values_of(self, variant: str) -> dict[str, Any]:
        """Settings by name, for a variant."""
        return {**self.values, **self.by_variant.get(variant, {})}


VARIANTS: dict[str, dict[str, Any]] = {
    "holistic": {},
    "sgar": {"motion_tower": "motret.parts:PartTransformer", "use_gar": True},
    "clip": {"unfreeze_text": True, "freeze_text_epochs": 1, "layer_decay": 0.8},
    "clip_readme": {  # the challenge README's recipe, its defaults being those of the libraries it names
        "mirror": 0.0,
        "speed": 1.0,
        "ema": 0.0,
        "motion_tower": "motret.frames:FrameTransformer",
        "features": "raw",
        "width": 512,
        "heads": 8,
        "max_frames": 512,
        "long_motions": "start",
        "mask": False,
        "dropout": 0.1,
        "projection": "none",
        "unfreeze_text": True,
        "unfrozen": "layers",
        "text_width": 512,
        "text_layers": 12,
        "learn_tau": False,
        "negative_threshold": 0.0,
        "captions": "random",
        "epochs": 30,
        "lr": 1e-4,
        "weight_decay": 0.01,
        "beta2": 0.999,
        "warmup_epochs": 0.0,
        "schedule": "epoch",
        "grad_clip": 0.0,
        "amp": "off",
        "select": "last",
        "save_halves": True,
    },
    "sgar_description": {  # the SGAR description's recipe; layers as MotionDiffuse publishes them, frames one by one
        "mirror": 0.0,
        "speed": 1.0,
        "ema": 0.0,
        "motion_tower": "motret.parts:PartTransformer",
        "use_gar": True,
        "part_encoders": True,
        "backbone": "motiondiffuse",
        "width": 512,
        "layers": 8,
        "heads": 8,
        "mlp_ratio": 2.0,
        "patch": 1,
        "max_frames": 196,
        "long_motions": "start",
        "pool": "cls",
        "token_drop": 0.0,
        "part_token_drop": 0.0,
        "proj_dim": 512,
        "learn_tau": False,
        "tau_prime": 0.05,
        "part_reduce": "sum",
        "negative_threshold": 0.0,
        "captions": "random",
        "epochs": 1000,
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "beta2": 0.999,
        "warmup_epochs": 5.0,
        "amp": "off",
        "eval_interval": 10,
        "select": "r1",
    },
}
"""Name -> the settings in which the variant differs from the defaults above. A model of one's own is one line here."""

PRESETS: dict[str, Preset] = {
    "fast": Preset(
        variants=("holistic", "sgar", "clip"),
        values={
            "folds": 3,
            "text_weights": "none",
            "text_layers": 1,
            "text_vocabulary": 8192,
            "layers": 2,
            "width": 128,
            "proj_dim": 128,
            "batch_size": 32,
            "lr": 1e-3,
            "epochs": 12,
            "eval_interval": 4,
        },
        by_variant={
            "sgar": {"layers": 1},
            "clip": {"text_layers": 2, "text_pool": "end", "text_activation": "quick_gelu", "patch": 8},
        },
        tuning={"trials": 10, "max_minutes": 2.5, "trial_epochs": 6, "confirm_folds": 1, "search": "tau,lr,head_lr_mult"},
        ensemble={"views": "mirror"},
        side_by_side=True,
        tuned_variants=1,
    ),
    "full": Preset(variants=("holistic", "sgar", "clip"), values={"folds": 5}, tuning={"trials": 20, "max_minutes": 30.0}),
}


def flat(settings: Any) -> dict[str, Any]:
    """Field name -> value of a settings object, groups opened. Names are unique over the groups."""
    values: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        values.update(flat(value) if is_dataclass(value) else {item.name: value})
    return values


def build(kind: type, values: Mapping[str, Any]) -> Any:
    """A settings object of this kind with the values named; the others keep their defaults."""
    blank = {item.name: _blank(item) for item in fields(kind)}
    given = {}
    for name, value in blank.items():
        if is_dataclass(value):
            given[name] = build(type(value), values)
        elif name in values:
            given[name] = values[name]
    return kind(**given)


def _blank(item: Any) -> Any:
    return item.default_factory() if callable(item.default_factory) else item.default


def names_of(kind: type) -> dict[str, Any]:
    """Flag name -> default of a kind of settings (MISSING where it has none)."""
    listed: dict[str, Any] = {}
    for item in fields(kind):
        value = _blank(item)
        listed.update(flat(value) if is_dataclass(value) and not isinstance(value, type) else {item.name: value})
    return listed
