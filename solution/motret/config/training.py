"""The settings of a run: groups of what the model is and how it is trained. Each field is a flag.

The docstring under a field is its text in `--help`.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro

from motret.config.base import (
    FORMER_MOTION_TOWERS,
    FORMER_NAMES,
    DataConfig,
    MachineConfig,
    check_at_least,
    check_fraction,
    check_positive,
    check_process_count,
    default_path,
    flatten,
)
from motret.config.presets import check_variants
from motret.errors import ConfigError, printable


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """The motion tower."""

    motion_tower: str = "transformer"
    """The tower: transformer, part (with part tokens), frame (the challenge README's), or your own
    class as module:Class. docs/add_motion_tower.md shows how to add one."""
    features: str = "canonical"
    """What the tower gets. canonical: each person in their own heading frame.
    canonical+<block>+...: with more feature blocks (docs/add_feature_block.md). raw: the columns of
    the file, each motion standardised by itself."""
    backbone: Literal["transformer", "motiondiffuse"] = "transformer"
    """Layers of the tower. transformer: softmax attention. motiondiffuse: MotionDiffuse's linear
    attention, with its parameter names."""
    backbone_weights: str | None = None
    """Published weights to start from: a MotionDiffuse or an MDM file. The file decides --backbone,
    --width, --layers, --heads and --mlp_ratio. none: from scratch. By default from scratch, except
    that --backbone motiondiffuse takes MotionDiffuse/checkpoints/.../model000600000.pt (the SGAR
    description's path) if it is in the current folder or the repository."""
    width: int = 256
    """Channels of a token."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    """Attention heads. They must divide --width."""
    mlp_ratio: float = 4.0
    """Hidden width of a layer's feed-forward network, as a multiple of --width."""
    cross_person_layers: int = 1
    """Number of layers, the last ones, in which the two persons attend to each other."""
    patch: int = 6
    """Frames per token."""
    max_frames: int = 300
    """Longest motion the tower takes, in frames (the SGAR description: 196)."""
    long_motions: Literal["subsample", "crop", "start"] = "subsample"
    """What happens to a longer motion. subsample: frames are left out evenly. crop: its middle is
    kept. start: its beginning is kept."""
    mask: bool = True
    """Exclude padding from attention and pooling. Off: zeros up to --max_frames count as frames.
    Only the tower of clip_readme can switch it off."""
    pool: Literal["mean_max", "cls"] = "mean_max"
    """How the tokens of the last layer become one vector: their mean and maximum, or the [CLS]
    token (the SGAR description)."""
    dropout: float = 0.0
    """Dropout of each sublayer (clip_readme: 0.1). --token_drop regularises too, and saves time."""
    token_drop: float = 0.5
    """Fraction of motion tokens dropped in each training step. It regularises and saves time."""
    projection: Literal["mlp", "none"] = "mlp"
    """Projection of each tower into the shared space. mlp: a small network. none: the tower's
    output itself, with a linear map where the text tower has another size."""
    proj_dim: int = 256
    """Size of the shared space (the SGAR description: 512). With --projection none it is the motion
    tower's size."""
    part_encoders: bool = False
    """With --use_gar: also encode the features of each body part alone, through the same layers.
    Four times the work."""
    part_token_drop: float = 0.5
    """Fraction of the tokens left by --token_drop that the part encoders drop as well."""

    def __post_init__(self) -> None:
        tower = FORMER_MOTION_TOWERS.get(self.motion_tower, self.motion_tower)
        object.__setattr__(self, "motion_tower", tower)
        check_at_least(self, 1, "width", "layers", "heads", "patch", "max_frames", "proj_dim")
        if self.width % self.heads:
            problem = f"{self.heads} heads do not divide a width of {self.width}"
            raise ConfigError("--heads", problem, "choose a divisor of --width")
        check_fraction(self, "token_drop", "dropout", below_one=True)
        if not 0 <= self.cross_person_layers <= self.layers:
            problem = f"{self.cross_person_layers} of {self.layers} layers"
            raise ConfigError("--cross_person_layers", problem, "give at most --layers")
        if not 1 <= self.mlp_ratio * self.width < float("inf"):
            fix = "give a number above 0; 4 is usual"
            raise ConfigError("--mlp_ratio", f"is {self.mlp_ratio:g}", fix)

    @property
    def weights_file(self) -> str | None:
        """The file of published weights; None where the layers start from scratch."""
        return None if self.backbone_weights == "none" else self.backbone_weights

    @property
    def hidden_dim(self) -> int:
        """Hidden width of a layer's feed-forward network."""
        return round(self.mlp_ratio * self.width)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower."""

    text_tower: str = "ViT-B-32"
    """An open_clip model name, hf:<name or folder> of a Hugging Face encoder, or your own class as
    module:Class. docs/add_text_tower.md shows how to add one."""
    text_weights: str = "openai"
    """Weights of an open_clip text tower: a pretrained tag, a checkpoint file, or none. none: from
    scratch, trained with the motion tower. Your own class gets it unchanged."""
    text_activation: Literal["auto", "gelu", "quick_gelu", "model"] = "auto"
    """Activation of open_clip's text tower. auto: the one the weights were trained with, known from
    their tag, OpenAI's archive or its checksum, or open_clip_config.json in the same folder;
    otherwise the one of --text_tower. model: always the one of --text_tower, as in runs without
    this setting."""
    unfreeze_text: bool = False
    """Train a pretrained text tower as well (on in clip). A tower from scratch is always
    trained."""
    unfrozen: Literal["all", "layers"] = "all"
    """Weights of a pretrained tower that are trained. layers: not the embeddings, the last norm and
    the projection."""
    freeze_text_epochs: int = 0
    """Number of epochs, the first ones, in which the pretrained text weights stay frozen."""
    text_width: int = 128
    """Channels of a text tower from scratch."""
    text_layers: int = 2
    """Layers of a text tower from scratch."""
    text_pool: Literal["mean", "end"] = "mean"
    """Pooling of a text tower from scratch. mean: the mean of all tokens, which needs fewer
    captions to learn. end: the end token, as in CLIP."""
    text_vocabulary: int = 49_408
    """Vocabulary size of a text tower from scratch: the most frequent of CLIP's byte pairs. A
    smaller vocabulary splits rare words into more tokens and learns faster. Your own class may take
    any size."""
    text_hidden: int = 512
    """Hidden width of the projection from the text tower into the shared space."""
    text_lr_mult: float = 0.1
    """Learning rate of pretrained text weights, as a multiple of --lr."""
    layer_decay: float = 1.0
    """Layer-wise decay of the learning rate in a pretrained text tower: the l-th layer from the top
    (l = 0, 1, ...) has its rate times this to the power l, the embeddings the lowest rate. 1:
    off."""
    wise_alpha: float | Literal["auto"] = 1.0
    """Weight of the fine-tuned text tower in its average with the pretrained one (WiSE-FT). 1: off.
    auto: the best of five weights on the held-out motions; each half of them is scored with the
    weight that is best on the other half."""

    @property
    def is_from_scratch(self) -> bool:
        """Whether the tower starts from random weights (and so must be trained)."""
        return self.text_weights == "none" and not self.text_tower.startswith("hf:")

    @property
    def is_trained(self) -> bool:
        """Whether the tower is trained with the motion tower, rather than run once per caption."""
        return self.unfreeze_text or self.is_from_scratch

    def __post_init__(self) -> None:
        check_at_least(self, 0, "text_lr_mult", "freeze_text_epochs")
        check_at_least(self, 1, "text_vocabulary")
        clip_pairs = ":" not in self.text_tower
        if clip_pairs and not 1024 <= self.text_vocabulary <= 49_408:
            fix = "give a number from 1024 to 49408, which is CLIP's"
            raise ConfigError("--text_vocabulary", f"is {self.text_vocabulary}", fix)
        if not 0 < self.layer_decay <= 1:
            fix = "give a number above 0, at most 1; 1 is off"
            raise ConfigError("--layer_decay", f"is {self.layer_decay:g}", fix)
        if self.wise_alpha != "auto" and not 0 <= self.wise_alpha <= 1:
            fix = "give a number from 0 to 1, or auto"
            raise ConfigError("--wise_alpha", f"is {self.wise_alpha:g}", fix)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The contrastive loss."""

    tau: float = 0.07
    """Temperature of the contrastive loss; its initial value with --learn_tau."""
    learn_tau: bool = True
    """Learn the temperature. 1 / tau is clamped to at most 100."""
    negative_threshold: float = 0.8
    """Captions at least this similar are no negatives of each other, unless they differ by a
    mirrored side. Similar: by the cosine of the pretrained tower's embeddings, less the mean of all
    captions. Above 1, or without a pretrained tower: only equal captions are excluded. 0: none
    is."""
    captions: Literal["all", "random"] = "all"
    """Positives of a motion in a step: all its captions, or one drawn at random each time."""
    label_smoothing: float = 0.0
    """Fraction of a caption's target that is spread over all motions of the batch."""

    def __post_init__(self) -> None:
        if self.tau <= 0:
            fix = "give a number above 0; 0.07 is usual"
            raise ConfigError("--tau", f"{self.tau} is no temperature", fix)


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """Body parts: their texts and their losses."""

    use_gar: bool = False
    """Learn from part descriptions as well (on in sgar). Off: the tower has no part tokens and no
    part encoders, as in holistic."""
    part_text: Literal["auto", "gar", "motion", "caption"] = "auto"
    """Source of part texts. gar: texts/gar_train.json. motion: derived from the motion. caption:
    captions that name a part. auto: gar if the file is there, otherwise motion."""
    lambda_part: float = 1.0
    """Weight of the soft contrastive loss of parts."""
    lambda_mix: float = 0.0
    """Weight of the loss on motions mixed with parts of other motions, and their mixed texts."""
    lambda_direction: float = 0.0
    """Weight of the loss on the directional relation between the whole and its parts."""
    tau_prime: float = 0.05
    """Temperature of the soft targets."""
    part_reduce: Literal["mean", "sum"] = "mean"
    """How the losses of the parts are reduced to one."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of training batches. Motions that are validated or ranked are never
    augmented."""

    mirror: float = 0.5
    """Fraction of motions that are mirrored, with left and right exchanged in their captions and
    part texts. 0: off."""
    person_swap: float = 0.0
    """Fraction of motions whose two persons are swapped, unless a caption mentions their order.
    Only for towers that tell the persons apart; the towers here do not."""
    speed: float = 1.25
    """Largest factor by which motions are sped up or slowed down, log-uniform. 1: off."""
    crop: float = 0.0
    """Largest fraction of a motion that a random crop removes."""
    frame_mask: float = 0.0
    """Fraction of frames that are masked: all their features are set to the mean."""
    noise: float = 0.0
    """Standard deviation of the noise added to each feature, in units of the feature's own."""
    rotation_offset: float = 0.0
    """Standard deviation of an offset added to each rotation feature of a person, the same in all
    frames, in units of the feature's own. For a test of other bodies or another capture, whose
    joints rest in other rotations: try 1.5 with --epochs 12 or more."""
    caption_mix: float = 0.0
    """Fraction of captions replaced by the mean of all captions of their motion."""
    word_dropout: float = 0.0
    """Fraction of words dropped from captions. Only for a text tower that is trained."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "speed")
        check_at_least(self, 0, "noise", "rotation_offset")
        check_fraction(self, "mirror", "person_swap", "caption_mix")
        check_fraction(self, "crop", "frame_mask", "word_dropout", below_one=True)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Length of the training, batch size, memory and precision."""

    batch_size: int = 64
    """Motions in a batch, each with all its captions. A step has --grad_accum batches."""
    grad_accum: int = 1
    """Batches that make one step, in the memory of one batch; the forward pass runs twice. Loss and
    gradients are those of one batch that much larger, but --token_drop and --lambda_mix draw other
    random numbers."""
    epochs: int = 12
    """Passes over the training folds. With --max_minutes: at most so many."""
    max_minutes: float | None = None
    """Time limit for the training of a fold, in minutes. The first epochs are timed, and the
    schedule is fitted to the number of epochs that will fit."""
    grad_checkpoint: bool = False
    """Gradient checkpointing of both towers: less memory, more time."""
    amp: Literal["auto", "on", "bf16", "fp16", "off"] = "auto"
    """Precision of matrix products. auto: bf16 where the hardware computes in it, else fp16 on a
    card with tensor cores, else off. bf16: bfloat16. fp16: float16, with a scaled loss. off:
    float32. --amp on, or without a value, is auto."""

    def __post_init__(self) -> None:
        check_at_least(self, 2, "batch_size")
        check_at_least(self, 1, "epochs", "grad_accum")
        check_positive(self, "max_minutes")

    @property
    def effective_batch_size(self) -> int:
        """Motions in a step."""
        return self.batch_size * self.grad_accum


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its learning rates and their schedule."""

    lr: float = 5e-4
    """Peak learning rate (the SGAR description: 1e-4, for published backbones)."""
    weight_decay: float = 0.05
    """Decoupled weight decay of weight matrices (the SGAR description: 1e-4)."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up (the SGAR description: 5, of 100)."""
    schedule: Literal["step", "epoch"] = "step"
    """Whether the cosine schedule changes the learning rate after each step or after each epoch."""
    beta2: float = 0.98
    """AdamW's decay of the average of squared gradients."""
    ema: float = 0.99
    """Decay of the exponential moving average of all weights, lower in the first steps. The average
    is what is validated and saved. 0: off."""
    head_lr_mult: float = 1.0
    """Learning rate of the projections into the shared space, as a multiple of --lr."""
    backbone_lr_mult: float = 0.1
    """Learning rate of weights loaded by --backbone_weights, as a multiple of --lr."""
    freeze_backbone: bool = False
    """Freeze the layers as loaded by --backbone_weights, or as initialised. Input projection,
    special tokens and heads are still trained."""
    grad_clip: float = 1.0
    """Maximum norm of the gradient. 0: no limit."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "head_lr_mult", "backbone_lr_mult", "weight_decay")
        check_at_least(self, 0, "warmup_epochs", "grad_clip")
        for name in ("beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                fix = "give a number from 0 to below 1"
                raise ConfigError(f"--{name}", f"is {getattr(self, name):g}", fix)
        check_positive(self, "lr")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a model is validated, and which weights are saved."""

    eval_interval: int = 1
    """Epochs between validations (the SGAR description: 10, of 100)."""
    early_stop_patience: int = 0
    """Stop after so many validations without a better one, and keep the best. 0: never."""
    select: Literal["last", "score", "r1"] = "last"
    """Checkpoint to keep. last: that of the last epoch (with --early_stop_patience: of the best
    score). score: the best local score. r1: the best text-to-motion R@1. Both are measured on the
    held-out motions, whose score is then slightly too high."""
    save_towers: bool = False
    """Also save the kept weights by tower: motion_encoder.pt, and clip_model_finetuned.pt if the
    text tower is trained. Always on if a pretrained text tower is trained."""
    save_every: int = 0
    """Also save a checkpoint every so many epochs, for --resume. 0: none."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "eval_interval")
        check_at_least(self, 0, "early_stop_patience", "save_every")

    @property
    def selection(self) -> Literal["last", "score", "r1"]:
        """Criterion that selects the epoch whose checkpoint is kept."""
        return "score" if self.select == "last" and self.early_stop_patience else self.select


@dataclass(frozen=True, kw_only=True)
class SnapshotConfig:
    """Figures drawn into the fold's folder during the training. They do not change the model."""

    save_attention: bool = False
    """Draw the attention of [CLS] and part tokens after the first epoch, every --attn_interval
    epochs and after the last."""
    attn_interval: int = 10
    """Epochs between figures of attention."""
    run_qualitative: bool = False
    """Write the qualitative analysis of the held-out motions every --qualitative_interval epochs
    and after the last."""
    qualitative_interval: int = 50
    """Epochs between qualitative analyses."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "attn_interval", "qualitative_interval")


NON_MODEL_SETTINGS = {
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
    "follow_links",
    "allow_towers",
    "preset",
    "folds",
    "fold_seed",
    "fold_jobs",
    "joblib_backend",
    "tuned",
    "log",
    "save_attention",
    "attn_interval",
    "run_qualitative",
    "qualitative_interval",
    "save_every",
    "save_towers",
}
"""Settings that do not change the model. A run may be resumed with other values of these."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of train.py."""

    variant: tyro.conf.Positional[str] = "holistic"
    """Variant to train, one of those listed above."""
    preset: Literal["fast", "full"] | None = None
    """A table of defaults. fast: for a laptop. full: for a GPU and the competition's data."""
    fold: str = "all"
    """Which fold to hold out: a number, all (one model per fold) or full (nothing is held out)."""
    folds: int = 5
    """Number of folds, if they are not made yet. If the data has gar_val.json, that file is the
    validation set unless this flag is given."""
    fold_seed: int = 0
    """Seed of the folds, if they are not made yet."""
    prefer_txt_split: bool = False
    """One split instead of folds: fold 0 holds out val.txt and trains on train.txt, or without
    these lists gar_val.json and gar_train.json."""
    fold_jobs: int = 1
    """Folds trained in parallel, each in its own process; they share the threads. -1: one per
    core."""
    joblib_backend: str = "loky"
    """How --fold_jobs runs folds in parallel: loky, multiprocessing, or another process backend
    that joblib knows."""
    tuned: str = "none"
    """Tuned values to use: auto (those of tune.py in --out_dir), none, or a file. They are used
    only if they were tuned for this data, folds, preset and text tower."""
    log: Literal["none", "tensorboard", "wandb"] = "none"
    """Also log each epoch to TensorBoard (event files in the fold's folder) or Weights & Biases.
    They are optional packages. Trials of tune.py are not logged."""
    out_dir: Path = field(default_factory=partial(default_path, "out_dir"))
    """Folder of run folders."""
    run_name: str | None = None
    """Name of the run folder. By default the variant and the time."""
    resume: str | None = None
    """Run to continue, with the settings of its args.json: a run folder, a checkpoint file (its
    fold continues from there), auto or same. auto: the run named --run_name; without a name, the
    newest run with these settings. same: as auto, but a run of this name with other data or
    settings is renamed, and a new run begins. More --epochs or --max_minutes train finished folds
    further, with the learning rate schedule of the new length."""
    allow_towers: tuple[str, ...] = ()
    """Classes of your own, as module:Class, that a run to continue may name as towers. Those of
    --motion_tower and --text_tower, and of the variants, always may."""
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)
    motion: tyro.conf.OmitArgPrefixes[MotionConfig] = field(default_factory=MotionConfig)
    text: tyro.conf.OmitArgPrefixes[TextConfig] = field(default_factory=TextConfig)
    loss: tyro.conf.OmitArgPrefixes[LossConfig] = field(default_factory=LossConfig)
    parts: tyro.conf.OmitArgPrefixes[PartConfig] = field(default_factory=PartConfig)
    augment: tyro.conf.OmitArgPrefixes[AugmentConfig] = field(default_factory=AugmentConfig)
    fit: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    optim: tyro.conf.OmitArgPrefixes[OptimConfig] = field(default_factory=OptimConfig)
    checkpoint: tyro.conf.OmitArgPrefixes[CheckpointConfig] = field(
        default_factory=CheckpointConfig
    )
    snapshots: tyro.conf.OmitArgPrefixes[SnapshotConfig] = field(default_factory=SnapshotConfig)

    def __post_init__(self) -> None:
        check_variants([self.variant], "train.py")
        check_run_name(self.run_name)
        if self.fold not in ("all", "full") and not self.fold.isdecimal():
            raise ConfigError("--fold", f"{self.fold!r} is no fold", "give a number, all or full")
        if self.augment.mirror and self.motion.features == "raw":
            fix = "use --features canonical, or --mirror 0"
            raise ConfigError("--mirror", "raw columns cannot be mirrored", fix)
        if self.parts.use_gar and self.motion.features == "raw":
            fix = "use --features canonical, or leave out --use_gar"
            raise ConfigError("--features", "raw columns have no parts", fix)
        check_process_count(self, "fold_jobs")

    @property
    def towers(self) -> tuple[str, ...]:
        """Towers that the command line names: a run that goes on may name their classes."""
        return (*self.allow_towers, self.motion.motion_tower, self.text.text_tower)


def check_run_name(name: str | None) -> None:
    """ConfigError where the name of a run is no plain name of a folder inside --out_dir."""
    if name is None:
        return
    is_path = name in ("", ".", "..") or "/" in name or "\\" in name
    if is_path or printable(name) != name or name[0] in "=@":
        fix = "give the name of a folder inside --out_dir, such as holistic_2"
        raise ConfigError("--run_name", f"{name!r} is not the name of a folder", fix)


def model_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that change a model, sorted by name.

    They have the first names they had, so that what is named after them keeps its name when a
    setting is renamed.
    """
    first_names = {now: former for former, now in FORMER_NAMES.items()}
    first_towers = {now: former for former, now in reversed(FORMER_MOTION_TOWERS.items())}
    values = {
        first_names.get(name, name): value
        for name, value in flatten(config).items()
        if name not in NON_MODEL_SETTINGS
    }
    tower = config.motion.motion_tower
    return dict(sorted((values | {"motion_tower": first_towers.get(tower, tower)}).items()))
