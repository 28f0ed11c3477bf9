"""The settings of every script, every variant and every preset: frozen dataclasses whose fields are the flags, and two tables.

A value comes from the first of: a flag, a tuned value, the preset, the variant, the default written here. Default paths stand
in SETTINGS.json alone. What a model is and how it learns is set by the groups in `training`.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import tyro

from motret.config.base import DataConfig, MachineConfig, check_at_least, check_positive, check_process_count, default_path, sample_dir
from motret.config.presets import VARIANTS
from motret.config.training import (
    AugmentConfig,
    CheckpointConfig,
    FitConfig,
    MotionConfig,
    OptimConfig,
    TextConfig,
)
from motret.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
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
        check_at_least(self, 1, "trials", "tune_folds", "confirm_folds", "trial_epochs")
        if unknown := sorted(set(self.variants) - set(VARIANTS)):
            raise ConfigError("tune.py", f"no variant is called {unknown[0]!r}", f"choose from {', '.join(VARIANTS)}")
        check_process_count(self, "jobs")
        check_positive(self, "max_minutes")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Checks and packs the data."""

    describe_parts: bool = False
    """Also write what each body part does in each training motion, derived from the motion, as GAR JSON to work/gar_described.json."""
    export_split_joints: tuple[Path, ...] | None = None
    """Also write the training motions in the layout of the SGAR description; a folder may follow, else work/split_joints."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if len(self.export_split_joints or ()) > 1:
            raise ConfigError("--export_split_joints", f"names {len(self.export_split_joints)} folders", "give one")


@dataclass(frozen=True, kw_only=True)
class FoldConfig:
    """Splits the training motions into folds."""

    folds: int | None = None
    """Number of folds, by default 5; or none but gar_val.json held out, in the layout of the SGAR description, where it is there."""
    fold_seed: int = 0
    """What the folds are drawn by."""
    prefer_txt_split: bool = False
    """One split instead of folds, by train.txt and val.txt, else gar_train.json and gar_val.json: fold 0 holds out the second list."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


VIEW_KINDS = ("mirror", "speed", "swap")
"""Kinds of test-time views."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
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
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top_k")
        if not all(0 < share < 1 for share in self.member_weight) or sum(self.member_weight) >= 1:
            raise ConfigError("--member_weight", "are shares of a mean", "give numbers above 0 that sum to less than 1")
        if self.views not in ("auto", "none") and (unknown := [view for view in self.views.split(",") if view not in VIEW_KINDS]):
            raise ConfigError("--views", f"there is no view {unknown[0]!r}", f"give auto, none, or some of {','.join(VIEW_KINDS)}")


@dataclass(frozen=True, kw_only=True)
class OofConfig:
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
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


@dataclass(frozen=True, kw_only=True)
class SubmissionConfig:
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
class RecordConfig:
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
class CompareConfig:
    """Says how far two submissions differ."""

    first: tyro.conf.Positional[Path]
    """A submission."""
    second: tyro.conf.Positional[Path]
    """Another one of the same queries."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
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
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 3, "pairs")
        if self.all_folds and self.fold is not None:
            raise ConfigError("--all_folds", f"draws every fold, and --fold {self.fold} one", "leave one of them out")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
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
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top")
        if not self.text.strip():
            raise ConfigError("search.py", "the text is empty", 'say what happens: python solution/search.py "two people shake hands"')


@dataclass(frozen=True, kw_only=True)
class ValidationQueriesConfig:
    """Draws validation batches in the test's own layout, with gt.csv, from held-out motions."""

    fold: int = 0
    """The fold from whose held-out motions queries are drawn."""
    queries: int = 30
    """Number of queries."""
    candidates: int = 32
    """Motions of each query."""
    out: Path | None = None
    """Folder to write; by default val/ in the data folder."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
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
        check_at_least(self, 1, "motions", "queries")
        for name, low in (("candidates", 2), ("seed", 0), ("fps", 5)):
            check_at_least(self, low, name)
        if self.motions > 99_999:
            raise ConfigError("--motions", f"is {self.motions}", "an id has five digits")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(SceneConfig):
    """Writes a generated challenge."""

    out: Path = field(default_factory=sample_dir)
    """Folder to write; an older sample in it is replaced, anything else is left alone."""
    force: bool = False
    """Make the sample anew even if the same one is there."""
    debug: bool = False
    """Show the traceback of an error."""


BenchSection = Literal["throughput", "time_to_score", "inference", "preparation", "memory", "validation"]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures how near the machine's own limit things run."""

    only: tuple[BenchSection, ...] = get_args(BenchSection)
    """Parts to measure."""
    quick: bool = False
    """Tiny sizes, to see that everything runs: the readings mean nothing."""
    target: float = 0.70
    """True score at which time to score ends."""
    baseline_command: str | None = None
    """A command that trains and ranks, its true score put beside ours at its wall time; {data} and {out} in it: a folder and a csv."""
    out: Path | None = None
    """The page to write; by default docs/benchmarks.md."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)
    motion: tyro.conf.OmitArgPrefixes[MotionConfig] = field(default_factory=MotionConfig)
    text: tyro.conf.OmitArgPrefixes[TextConfig] = field(default_factory=TextConfig)
    augment: tyro.conf.OmitArgPrefixes[AugmentConfig] = field(default_factory=AugmentConfig)
    fit: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    optim: tyro.conf.OmitArgPrefixes[OptimConfig] = field(default_factory=OptimConfig)
    checkpoint: tyro.conf.OmitArgPrefixes[CheckpointConfig] = field(default_factory=CheckpointConfig)
