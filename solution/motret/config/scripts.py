"""The settings of every script but train.py: one frozen dataclass each, whose fields are its flags.

The docstring under a field is its text in `--help`. A value comes from the first of: a flag, a
tuned value, the preset, the variant, the default written here. Default paths are in SETTINGS.json.
"""

import re
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, get_args

import tyro

from motret.config.base import (
    DataConfig,
    MachineConfig,
    check_at_least,
    check_fraction,
    check_positive,
    check_process_count,
    default_path,
    sample_dir,
)
from motret.config.presets import check_variants
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
    """Searches for better settings of variants. It also takes every flag of train.py; a setting
    given by a flag is not searched."""

    variants: tyro.conf.Positional[tuple[str, ...]] = ()
    """Variants to tune. By default those of the preset."""
    preset: Literal["fast", "full"] | None = None
    """A table of defaults. fast: for a laptop. full: for a GPU and the competition's data."""
    trials: int = 30
    """Trials per variant, including those of earlier calls: a second call continues up to this
    number."""
    max_minutes: float | None = None
    """Time limit for all variants together, in minutes, including earlier calls. A trial starts
    only if it and the confirmation after it are expected to end in time."""
    tune_folds: int = 1
    """Number of folds, the first ones, on which a trial is trained and scored."""
    confirm_folds: int = 2
    """Number of folds after those on which the default and the best trials (up to three) are
    trained again. Tuned values are adopted only if they are better there by more than two standard
    errors; with several candidates by more."""
    trial_epochs: int = 6
    """Epochs of a trial, if the training has more."""
    search: str | None = None
    """Settings to search, separated by commas. By default all that
    solution/motret/tuning/search_space.py lists for the variant."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Optuna pruner, which ends trials early by their score after each epoch."""
    storage: str | None = None
    """Optuna storage URL of the study, such as postgresql://..., or grpc://host:port of Optuna's
    proxy. By default a journal file in the folder of the results."""
    jobs: int = 1
    """Trials run in parallel, each in its own process; they share the threads. -1: one per core."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders. Results go to tune/<variant>/ in it."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "trials", "tune_folds", "confirm_folds", "trial_epochs")
        check_variants(self.variants, "tune.py")
        check_process_count(self, "jobs")
        check_positive(self, "max_minutes")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """Adapts a text tower to how people describe motions."""

    captions: tuple[Path, ...] = ()
    """Captions to learn from: JSON files (id -> captions) and folders of <id>.txt. Two captions of
    one motion at least; no motions are needed. By default the competition's own, texts/ in the data
    folder."""
    text_tower: str = "hf:sentence-transformers/all-MiniLM-L6-v2"
    """The encoder to start from, hf:<name or folder>."""
    out: Path = field(default_factory=lambda: default_path("work_dir") / "text_tower")
    """Folder of the adapted encoder, for --text_tower hf:FOLDER of train.py. An older one in it is
    replaced; a folder with anything else is refused."""
    steps: int = 90
    """Training steps."""
    batch_size: int = 64
    """Motions in a step, with two captions each."""
    join: float = 0.0
    """Fraction of captions that are joined with those of another motion to a scene of two persons.
    For captions of single persons."""
    lr: float = 3e-5
    """Peak learning rate."""
    tau: float = 0.05
    """Temperature of the contrast."""
    amp: Literal["auto", "on", "bf16", "fp16", "off"] = "auto"
    """Precision of matrix products, as for train.py."""
    data_dir: Path = field(default_factory=partial(default_path, "data_dir"))
    """The competition's data."""
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "steps")
        check_at_least(self, 2, "batch_size")
        check_fraction(self, "join")
        check_positive(self, "lr")
        check_positive(self, "tau")


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """What a scorer of captions and motions is trained with. The fields are flags of rerank.py, and
    a trained scorer depends on all but the last."""

    epochs: int
    batch_size: int
    dim: int
    hidden: int
    lr: float
    dropout: float
    token_drop: float
    mirror: bool
    gallery: int


@dataclass(frozen=True, kw_only=True)
class RerankConfig:
    """Scores candidates once more, with what finished runs have learned."""

    DEFAULTS: ClassVar = {
        "likelihood": {"epochs": 12, "batch_size": 64, "lr": 3e-3, "dropout": 0.2, "gallery": 128},
        "words": {"epochs": 6, "batch_size": 64, "lr": 1e-3, "dropout": 0.1, "gallery": 0},
    }
    """Settings that each method has a default of its own for."""
    MIN_GALLERY: ClassVar = 32
    """As many as a query has candidates."""
    runs: tuple[str, ...] = ()
    """Runs to score with (a path, or a name inside --out_dir). By default every finished run of
    this data."""
    method: Literal["likelihood", "words"] = "likelihood"
    """likelihood: how likely a caption is, word after word, given the motion. words: every word of
    the caption looks for the motion token that fits it best."""
    epochs: int | None = None
    """Passes over the training folds. By default 12, for words 6."""
    batch_size: int | None = None
    """Captions in a batch; for words motions, each with all its captions. By default 64."""
    dim: int = 128
    """Width of the caption model; for words size of the space in which words and tokens meet."""
    hidden: int = 256
    """Hidden width of the projections into that space. For words alone."""
    lr: float | None = None
    """Peak learning rate. By default 3e-3, for words 1e-3."""
    dropout: float | None = None
    """Dropout. By default 0.2, for words 0.1."""
    token_drop: float = 0.5
    """Fraction of motion tokens that are left out in each training step."""
    mirror: bool = True
    """Train on the motions and their captions in the mirror as well. For the likelihood alone."""
    gallery: int | None = None
    """Held-out motions that a held-out caption is scored with: its own and others drawn at random.
    0: all, which takes long. By default 128, for words 0."""
    test_dir: Path | None = None
    """Folder of queries. By default test/ in the data folder."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders. The scores go to <run>/likelihood.npz in it, or word_match.npz."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        settings = self.scorer
        check_at_least(settings, 1, "epochs", "dim", "hidden")
        check_at_least(settings, 2, "batch_size")
        check_fraction(settings, "dropout", "token_drop", below_one=True)
        check_positive(settings, "lr")
        if settings.gallery:
            check_at_least(settings, self.MIN_GALLERY, "gallery")
        if self.method == "likelihood" and self.dim % 4:
            raise ConfigError("--dim", f"is {self.dim}", "give a multiple of 4, for 4 heads")

    @property
    def scorer(self) -> ScorerSettings:
        """The settings of the scorers, with the method's defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(ScorerSettings)}
        set_here = {name: value for name, value in values.items() if value is not None}
        set_here["mirror"] = self.mirror and self.method == "likelihood"
        return ScorerSettings(**(self.DEFAULTS[self.method] | set_here))


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Checks the data and packs their features."""

    describe_parts: bool = False
    """Also write what each body part does in each training motion, derived from the motion, as GAR
    JSON to work/gar_described.json."""
    export_split_joints: tuple[Path, ...] | None = None
    """Also write the training motions in the layout of the SGAR description. An output folder may
    follow; by default work/split_joints."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if self.export_split_joints and len(self.export_split_joints) > 1:
            problem = f"names {len(self.export_split_joints)} folders"
            raise ConfigError("--export_split_joints", problem, "give one")


@dataclass(frozen=True, kw_only=True)
class FoldConfig:
    """Splits the training motions into folds."""

    folds: int | None = None
    """Number of folds, by default 5. If the data has gar_val.json, that file is the validation set
    unless this flag is given."""
    fold_seed: int = 0
    """Seed of the folds."""
    prefer_txt_split: bool = False
    """One split instead of folds: fold 0 holds out val.txt and trains on train.txt, or without
    these lists gar_val.json and gar_train.json."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


VIEW_KINDS = ("mirror", "speed", "swap")
"""Kinds of views in test-time augmentation."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """Weights runs by their out-of-fold score, ranks the candidates and writes the submission."""

    runs: tuple[str, ...] = ()
    """Run folders to ensemble (a path, or a name inside --out_dir). By default every finished run
    of this data."""
    members: tuple[Path, ...] = ()
    """Predictions made elsewhere. FILE.csv: ranks, like a submission. FILE.npz: arrays query,
    candidate and similarity, as saved with a submission. An .npz is weighted by its score if it
    also holds oof0, oof1, ... (captions x held-out motions of a fold) and folds (the hash in
    folds.json)."""
    member_weight: tuple[float, ...] = ()
    """Weight of each of --members that has no out-of-fold predictions and so cannot be weighted by
    a score: its fraction of the ensemble. Their sum is below 1."""
    weights: Literal["auto", "local", "equal"] = "auto"
    """local: weights by the out-of-fold score, but equal weights if the gain is within its standard
    error. auto: the same, but if the test's captions are unlike the training's, by the score of
    held-out captions and candidates that are as far."""
    query_bank: Literal["auto", "test", "off"] = "auto"
    """Query-bank normalisation. auto: with the training captions, if its out-of-fold gain is above
    its standard error. test: with the queries themselves, for a test told in other words than the
    training set, where the rules allow to use the queries of the test together; 60 at least."""
    views: str = "auto"
    """Test-time augmentation: further views of the motions, separated by commas: mirror (captions
    too), speed, swap (of the persons). none: off. auto: those whose out-of-fold gain is above its
    standard error."""
    assign: bool = False
    """One-to-one assignment: queries that share candidates are ranked together, as no motion
    answers two of them. Only where the rules allow to use the queries of the test together, and
    only if their answers do differ: the gain is printed for both cases, with what the test itself
    looks like."""
    fold: int | None = None
    """Use only the models of this fold, with weights fitted on the others. By default the models of
    all folds."""
    test_dir: Path | None = None
    """Folder of queries to rank. By default test/ in the data folder."""
    out: Path | None = None
    """Submission file. By default submissions/submission.csv; for validation queries ranked.csv in
    their folder."""
    top_k: int = 10
    """Candidates to write per query."""
    candidate_format: Literal["int", "name"] = "int"
    """How a candidate is written. int: 7. name: motion_7."""
    part_weight: float | Literal["auto"] = 0.0
    """Weight of the similarity of the parts that a query names, added by runs with parts. auto: the
    best weight out of fold; it is chosen on all folds, so its score is slightly too high."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    submissions_dir: Path = field(default_factory=partial(default_path, "submissions_dir"))
    """Folder of submissions and their log."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top_k")
        if not all(0 < weight < 1 for weight in self.member_weight) or sum(self.member_weight) >= 1:
            fix = "give numbers above 0 that sum to less than 1"
            raise ConfigError("--member_weight", "are fractions of the ensemble", fix)
        if self.views in ("auto", "none"):
            return
        if unknown := [view for view in self.views.split(",") if view not in VIEW_KINDS]:
            fix = f"give auto, none, or some of {','.join(VIEW_KINDS)}"
            raise ConfigError("--views", f"there is no view {unknown[0]!r}", fix)


@dataclass(frozen=True, kw_only=True)
class OofConfig:
    """Scores runs on their held-out motions."""

    runs: tuple[str, ...] = ()
    """Run folders (a path, or a name inside --out_dir). By default every run of this data with a
    finished fold."""
    verbose: bool = False
    """Also print each fold, plain recall in both directions, and what it gains to select each
    fold's epoch by its score."""
    slices: bool = False
    """Also print the score of the best run by what captions are like: persons named, length, words
    unseen in training, captions that several motions share, length of the motion, source. And how
    much the score differs between groups."""
    against: str | None = None
    """Run to compare the others with. By default the best one. Differences are paired by motion and
    have a standard error."""
    part_weight: float | Literal["auto"] = 0.0
    """Weight of the similarity of the parts that a caption names, added by runs with parts. auto:
    the best weight out of fold."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


@dataclass(frozen=True, kw_only=True)
class SubmissionConfig:
    """Checks the form of a submission, and scores it if the ground truth is known."""

    file: tyro.conf.Positional[Path]
    """Submission file."""
    gt: Path | None = None
    """Ground truth, a CSV file of query_id,candidate. By default gt.csv in the test folder, if it
    is there."""
    test_dir: Path | None = None
    """Folder of the queries it answers. By default test/ in the data folder."""
    data_dir: Path = field(default_factory=partial(default_path, "data_dir"))
    """The competition's data."""
    follow_links: bool = False
    """Read texts through links that lead out of the test folder."""
    top_k: int = 10
    """Candidates each query must have."""
    verbose: bool = False
    """Also print the recall at each k."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Writes the leaderboard's score of a submission into the log."""

    file: tyro.conf.Positional[Path]
    """Submission file: a saved one, by path or name, or a copy of it."""
    public_score: tyro.conf.Positional[float]
    """Score on the leaderboard."""
    submissions_dir: Path = field(default_factory=partial(default_path, "submissions_dir"))
    """Folder of submissions and their log."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Measures how much two submissions differ."""

    first: tyro.conf.Positional[Path]
    """A submission file."""
    second: tyro.conf.Positional[Path]
    """Another submission file, of the same queries."""
    gt: Path | None = None
    """Ground truth, a CSV file of query_id,candidate: both are scored, and the difference is paired
    by query."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Draws figures and a web page of each run into its report/ folder."""

    run: tuple[str, ...] = ()
    """Run folders (a path, or a name inside --out_dir). By default those of the latest submission,
    otherwise every run with a finished fold."""
    fold: int | None = None
    """Fold whose attention and analysis are drawn. By default the first finished one. The curves
    and the page cover all folds."""
    all_folds: bool = False
    """Draw attention and analysis of every finished fold."""
    attn_layer: int = -1
    """Layer whose attention is drawn, counted from 0. Negative numbers count from the last layer,
    -1."""
    pairs: int = 200
    """Text-motion pairs in the t-SNE figure."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    submissions_dir: Path = field(default_factory=partial(default_path, "submissions_dir"))
    """Folder of submissions and their log."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 3, "pairs")
        if self.all_folds and self.fold is not None:
            problem = f"draws every fold, and --fold {self.fold} draws one"
            raise ConfigError("--all_folds", problem, "leave one of them out")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Ranks motions by how well they match a text, and shows them on a web page."""

    text: tyro.conf.Positional[str] = "two people hug, then one walks away"
    """Description of the motion to find."""
    gallery: str = "train"
    """Motions to search. train: training motions, each scored by a model that was not trained on
    it. test: all candidates. Otherwise a folder of .npy motions, or an index that index.py made."""
    exact: bool = False
    """Compare every motion of an index, also where it has an approximate part."""
    probes: int = 64
    """Lists of an approximate index that are looked into: more find more of the best, and take
    longer."""
    top: int = 12
    """Number of motions to show."""
    run: str | None = None
    """Run folder (a path, or a name inside --out_dir). By default the run that finished last."""
    out: Path | None = None
    """Web page to write. By default report/search.html in the run folder."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "top", "probes")
        if not self.text.strip():
            fix = 'describe a motion: python solution/search.py "two people shake hands"'
            raise ConfigError("search.py", "the text is empty", fix)


@dataclass(frozen=True, kw_only=True)
class IndexAddConfig:
    """Adds the motions of a folder to an index, with the models that it was built with."""

    index: tyro.conf.Positional[Path]
    """Folder of the index."""
    motions: Path | None = None
    """Folder of .npy motions. By default motions/ in the data folder."""
    run: str | None = None
    """Run folder (a path, or a name inside --out_dir). By default the one that the index names, or
    for a new index the run that finished last."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


@dataclass(frozen=True, kw_only=True)
class IndexBuildConfig(IndexAddConfig):
    """Builds an index of motions to search in, or goes on with one."""

    models: tuple[str, ...] = ()
    """Models of the run that embed: numbers of folds, or full. By default all that are finished, as
    search.py ranks a folder. One alone takes a fraction of time and space."""
    numbers: Literal["int8", "float16"] = "int8"
    """How vectors are stored. int8: half the size, and faster. float16: more exact."""
    ann: bool = False
    """Also build an approximate index of all motions (IVF-PQ), for millions of them. It needs
    faiss: pip install faiss-cpu."""


@dataclass(frozen=True, kw_only=True)
class IndexCheckConfig:
    """Reads all files of an index, and measures its approximate part against exact search."""

    index: tyro.conf.Positional[Path]
    """Folder of the index."""
    queries: int = 200
    """Captions of the data folder that are searched for, exactly and approximately."""
    run: str | None = None
    """Run folder (a path, or a name inside --out_dir). By default the one that the index names."""
    probes: tuple[int, ...] = (16, 64, 256)
    """Numbers of lists that are looked into, one after the other."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "queries")
        if not self.probes or min(self.probes) < 1:
            raise ConfigError("--probes", "a number is below 1", "give 1 or more")


@dataclass(frozen=True, kw_only=True)
class ValidationQueriesConfig:
    """Writes validation queries with gt.csv, in the layout of the test, from held-out motions."""

    fold: int = 0
    """Fold whose held-out motions are used."""
    queries: int = 30
    """Number of queries."""
    candidates: int = 32
    """Candidates per query."""
    out: Path | None = None
    """Output folder. By default val/ in the data folder."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Settings that decide the content of a generated challenge."""

    motions: int = 300
    """Training motions."""
    queries: int = 30
    """Test queries."""
    candidates: int = 32
    """Candidates per query."""
    seed: int = 0
    """Seed: the same seed gives the same files."""
    fps: float = 30.0
    """Frames per second."""

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
    """Output folder. An older sample in it is replaced; a folder with anything else is refused."""
    force: bool = False
    """Generate again even if the same sample is there."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True, kw_only=True)
class PackageConfig:
    """Packs what a Kaggle notebook needs into a folder to upload as a dataset."""

    runs: tuple[str, ...] = ()
    """Runs to pack (a path, or a name inside --out_dir). By default every finished run of the folds
    in --folds_dir. none: no run, for a training on Kaggle."""
    user: str | None = None
    """Your user name on Kaggle. With it and --competition the notebooks are made ready to push, and
    the commands are printed."""
    competition: str | None = None
    """The competition's name as in its address on Kaggle."""
    name: str = "motret"
    """Beginning of the names on Kaggle: of the dataset NAME-files and the notebooks NAME-train and
    NAME-infer."""
    text_tower: str | None = None
    """Text tower to pack for a training on Kaggle, as for train.py. Those of the packed runs are
    always packed."""
    text_weights: str = "openai"
    """Weights of --text_tower: a file, or a tag whose weights are on this machine."""
    wheels: bool = True
    """Download the packages that Kaggle's image lacks, for notebooks without internet."""
    extra_packages: tuple[str, ...] = ()
    """Further packages to download with --wheels, which towers of your own need."""
    python_version: str = "3.12"
    """Python version of Kaggle's image, for --wheels."""
    accelerator: str = "NvidiaTeslaT4Highmem"
    """Accelerator of the notebooks, by its name on Kaggle. NvidiaTeslaT4Highmem: two T4."""
    out: Path = field(default_factory=lambda: default_path("work_dir") / "kaggle")
    """Folder to write. An older package in it is replaced; a folder with anything else is
    refused."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that runs may name as towers. Those of the variants
    always may; nothing else that a run names is imported."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    folds_dir: Path = field(default_factory=partial(default_path, "folds_dir"))
    """Folder of folds.csv and folds.json."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        if (self.user is None) != (self.competition is None):
            problem = "are given together or not at all"
            raise ConfigError("--user and --competition", problem, "give both")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            fix = "give small letters, digits and single dashes, as in an address"
            raise ConfigError("--name", f"{self.name!r} cannot be part of an address", fix)


BenchSection = Literal[
    "throughput", "time_to_score", "inference", "preparation", "memory", "validation"
]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures speed and memory, and compares them with the limits of the machine."""

    only: tuple[BenchSection, ...] = get_args(BenchSection)
    """Sections to measure."""
    quick: bool = False
    """Tiny sizes, to test that everything runs. The measurements mean nothing."""
    target: float = 0.70
    """True score at which the clock of time_to_score stops."""
    baseline_command: str | None = None
    """Command that trains and ranks another solution. Its true score and wall time are compared
    with ours. {data} and {out} in it stand for the data folder and the CSV file to write."""
    out: Path | None = None
    """Page to write. By default docs/benchmarks.md."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)
    motion: tyro.conf.OmitArgPrefixes[MotionConfig] = field(default_factory=MotionConfig)
    text: tyro.conf.OmitArgPrefixes[TextConfig] = field(default_factory=TextConfig)
    augment: tyro.conf.OmitArgPrefixes[AugmentConfig] = field(default_factory=AugmentConfig)
    fit: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    optim: tyro.conf.OmitArgPrefixes[OptimConfig] = field(default_factory=OptimConfig)
    checkpoint: tyro.conf.OmitArgPrefixes[CheckpointConfig] = field(
        default_factory=CheckpointConfig
    )
