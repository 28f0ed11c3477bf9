"""What a model is and how it learns: groups of settings, each field a flag of the scripts that train (`scripts`)."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from motret.config.base import (
    FORMER_MOTION_TOWERS,
    DataConfig,
    MachineConfig,
    check_at_least,
    check_positive,
    check_process_count,
    default_path,
)
from motret.config.presets import VARIANTS
from motret.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """The motion tower."""

    motion_tower: str = "transformer"
    """transformer, part (with part tokens), frame (the challenge README's), or a class of one's own
    as module:Class; docs/add_motion_tower.md shows how to add one."""
    features: str = "canonical"
    """What it gets: canonical, each person in the own heading frame; canonical+<block>+..., with more feature blocks
    (docs/add_feature_block.md); or raw, the columns as stored, standardised over each motion by itself."""
    backbone: Literal["transformer", "motiondiffuse"] = "transformer"
    """Layers of the tower: softmax attention, or MotionDiffuse's linear attention under its parameter names."""
    backbone_weights: str | None = None
    """Published weights to start from, a MotionDiffuse or an MDM file: it decides --backbone, --width, --layers, --heads and --mlp_ratio.
    By default, for --backbone motiondiffuse alone, the SGAR description's MotionDiffuse/checkpoints/.../model000600000.pt, where it is,
    in the current folder or the repository; none: from scratch."""
    width: int = 256
    """Channels of a token."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    """Attention heads; they divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of a layer's feed-forward part, as a multiple of --width."""
    cross_person_layers: int = 1
    """How many of the layers, the last ones, let the two persons attend to each other."""
    patch: int = 6
    """Frames that make one token."""
    max_frames: int = 300
    """Longest motion the tower sees (the SGAR description: 196)."""
    long_motions: Literal["subsample", "crop", "start"] = "subsample"
    """What is done with a longer one: frames left out evenly, or its middle kept, or its beginning."""
    mask: bool = True
    """Keep padding out of attention and mean; off (clip_readme alone): zeros up to --max_frames count as frames, as in that recipe."""
    pool: Literal["mean_max", "cls"] = "mean_max"
    """What of the tokens after the last layer is the motion: their mean and maximum, or [CLS] alone (the SGAR description)."""
    dropout: float = 0.0
    """Share of the numbers that each sublayer loses at random while training (clip_readme: 0.1); dropping tokens saves time as well."""
    token_drop: float = 0.5
    """Share of motion tokens left out of each training step; regularises and saves their work."""
    projection: Literal["mlp", "none"] = "mlp"
    """Each tower's way into the shared space: a small network, or none: its output itself (texts of another size: a linear map)."""
    proj_dim: int = 256
    """Size of the space that texts and motions share (the SGAR description: 512); with --projection none it is the motion tower's."""
    part_encoders: bool = False
    """With --use_gar: besides part tokens, encode each part's own stream through the shared layers; four times the work."""
    part_token_drop: float = 0.5
    """Share of the tokens that dropping leaves which the part encoders leave out as well."""

    def __post_init__(self) -> None:
        tower = FORMER_MOTION_TOWERS.get(self.motion_tower, self.motion_tower)
        object.__setattr__(self, "motion_tower", tower)
        check_at_least(self, 1, "width", "layers", "heads", "patch", "max_frames", "proj_dim")
        if self.width % self.heads:
            raise ConfigError("--heads", f"{self.heads} heads do not divide a width of {self.width}", "choose a divisor of --width")
        for name in ("token_drop", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name}", f"{getattr(self, name)} is no share below 1", "give a number from 0 to 0.9")
        if not 0 <= self.cross_person_layers <= self.layers:
            raise ConfigError("--cross_person_layers", f"{self.cross_person_layers} of {self.layers} layers", "give at most --layers")
        if not 1 <= self.mlp_ratio * self.width < float("inf"):
            raise ConfigError("--mlp_ratio", f"is {self.mlp_ratio:g}", "give a number above 0; 4 is usual")

    @property
    def weights_file(self) -> str | None:
        """The file of published weights; None where the layers start from scratch."""
        return None if self.backbone_weights == "none" else self.backbone_weights

    @property
    def hidden_dim(self) -> int:
        """Hidden width of a layer's feed-forward part."""
        return round(self.mlp_ratio * self.width)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower."""

    text_tower: str = "ViT-B-32"
    """An open_clip model name, hf:<name or folder> for any Hugging Face encoder, or a class of one's
    own as module:Class; docs/add_text_tower.md shows how to add one."""
    text_weights: str = "openai"
    """open_clip weights: a tag, a local checkpoint, or none (from scratch, trained with the motion tower).
    A class of one's own gets it as it stands."""
    text_activation: Literal["auto", "gelu", "quick_gelu", "model"] = "auto"
    """Activation of open_clip's text tower; auto: the one that the weights were trained with, by their tag, OpenAI's archive or checksum,
    or open_clip_config.json beside the file, else as --text_tower says; model: as --text_tower says, as in runs made before this flag."""
    unfreeze_text: bool = False
    """Train a pretrained text tower too (on in clip); a tower from scratch always is."""
    unfrozen: Literal["all", "layers"] = "all"
    """Which weights of a pretrained tower learn then: all, or its layers alone (no embeddings, last norm, projection)."""
    freeze_text_epochs: int = 0
    """Epochs at the beginning in which the pretrained weights stay as they are, while the rest learns."""
    text_width: int = 128
    """Channels of a text tower from scratch."""
    text_layers: int = 2
    """Layers of a text tower from scratch."""
    text_pool: Literal["mean", "end"] = "mean"
    """What a text tower from scratch is read by: the mean of all tokens, which learns from fewer captions, or the end token, as CLIP's."""
    text_vocabulary: int = 49_408
    """Entries of its vocabulary, CLIP's byte pairs in order of frequency; fewer cut rare words into more pieces and learn faster."""
    text_hidden: int = 512
    """Hidden width of the projection from the text tower into the shared space."""
    text_lr_mult: float = 0.1
    """Learning rate of pretrained text weights, as a multiple of --lr."""
    layer_decay: float = 1.0
    """The rate of the l-th pretrained text layer from the top (l = 0, 1, ...) is times this to the l; embeddings are lowest; 1: off."""
    wise_alpha: float | Literal["auto"] = 1.0
    """Share of the fine-tuned in the final text tower, the rest is pretrained (WiSE-FT); 1: off.
    auto: the best of five on the held-out motions; each half of these is embedded with the share that is best on the other."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "text_lr_mult", "freeze_text_epochs")
        if not 1024 <= self.text_vocabulary <= 49_408:
            raise ConfigError("--text_vocabulary", f"is {self.text_vocabulary}", "give a number from 1024 to 49408, which is CLIP's")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError("--layer_decay", f"is {self.layer_decay:g}", "give a number above 0, at most 1; 1 is off")
        if self.wise_alpha != "auto" and not 0 <= self.wise_alpha <= 1:
            raise ConfigError("--wise_alpha", f"is {self.wise_alpha:g}", "give a number from 0 to 1, or auto")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    tau: float = 0.07
    """Temperature of the contrastive loss (its first value when it is learned)."""
    learn_tau: bool = True
    """Learn the temperature, clamped so that 1 / tau <= 100."""
    negative_threshold: float = 0.8
    """Texts at least this similar (cosine of the pretrained tower, less the mean of all captions) are no negatives of each other, unless
    they differ by a mirrored side. Above 1, or without such a tower, only equal texts are not; 0: all are negatives."""
    captions: Literal["all", "random"] = "all"
    """Positives of a motion in a step: all its captions, or one of them, drawn anew each time."""
    label_smoothing: float = 0.0
    """Share of the caption's target spread over all motions of the batch."""

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ConfigError("--tau", f"{self.tau} is no temperature", "give a number above 0; 0.07 is usual")


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """What is learned from the parts of the body."""

    use_gar: bool = False
    """Learn from part descriptions too (on in sgar); off: the tower has no part tokens and no part encoders, as in holistic."""
    part_text: Literal["auto", "gar", "motion", "caption"] = "auto"
    """Source of part texts: texts/gar_train.json, the motion itself, or captions that name a part; auto: the file, else the motion."""
    lambda_part: float = 1.0
    """Weight of the soft part contrast."""
    lambda_mix: float = 0.0
    """Weight of motions with parts of other motions, and their mixed texts."""
    lambda_direction: float = 0.0
    """Weight of the directional relation between whole and parts."""
    tau_prime: float = 0.05
    """Temperature of the soft targets."""
    part_reduce: Literal["mean", "sum"] = "mean"
    """The part contrast is a mean over parts, or their sum."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training batches are changed at random; motions that are embedded or validated never are."""

    mirror: float = 0.5
    """Share of motions shown in a mirror, left and right exchanged in their captions and part texts too; 0: off."""
    person_swap: float = 0.0
    """Share of motions whose persons change places, where no caption tells them by order; for towers that tell them apart, ours do not."""
    speed: float = 1.25
    """Motions run up to so many times faster or slower, evenly in the logarithm; 1: as they are."""
    crop: float = 0.0
    """A contiguous piece of each motion is shown, shorter by up to this share."""
    frame_mask: float = 0.0
    """Share of frames that are hidden: all features at their mean."""
    noise: float = 0.0
    """Deviation of the noise added to each feature, in units of the feature's own."""
    caption_mix: float = 0.0
    """Share of captions replaced by the mean of all captions of their motion."""
    word_dropout: float = 0.0
    """Share of the words left out of captions; only for a text tower that trains."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "speed")
        check_at_least(self, 0, "noise")
        for name in ("mirror", "person_swap", "caption_mix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name}", f"{getattr(self, name)} is no share", "give a number from 0 to 1")
        for name in ("crop", "frame_mask", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name}", f"{getattr(self, name)} is no share below 1", "give a number from 0 to 0.9")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long to train, and on how much at a time."""

    batch_size: int = 64
    """Motions that are computed at a time, each with all its captions; a step has --grad_accum times as many."""
    grad_accum: int = 1
    """Batches that make one step, in the memory of one; computed twice. Loss and gradients are those of one batch so much larger, but that
    --token_drop and --lambda_mix draw otherwise, since it comes in more pieces."""
    epochs: int = 12
    """Passes over the training folds; with --max_minutes the most there will be."""
    max_minutes: float | None = None
    """Time limit of a fold's training; the schedule is fitted to the epochs that the first ones say will fit."""
    grad_checkpoint: bool = False
    """Compute the layers of both towers again in the backward pass instead of keeping what they computed: less memory, more time."""
    amp: Literal["auto", "on", "off"] = "auto"
    """bfloat16 autocast; auto: where the hardware computes in it; --amp alone is on."""

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
    """The optimizer, its learning rates and their schedule."""

    lr: float = 5e-4
    """Highest learning rate (the SGAR description: 1e-4, for published backbones)."""
    weight_decay: float = 0.05
    """AdamW's decoupled decay of weight matrices (the SGAR description: 1e-4)."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate rises from 0 (the SGAR description: 5, of 100)."""
    schedule: Literal["step", "epoch"] = "step"
    """The learning rate follows its cosine by steps, or stays the same within an epoch."""
    beta2: float = 0.98
    """AdamW's memory of squared gradients."""
    ema: float = 0.99
    """Decay of a moving average of all weights, which is what is validated and kept; less in the first steps; 0: off."""
    head_lr_mult: float = 1.0
    """Learning rate of the projections into the shared space, as a multiple of --lr."""
    backbone_lr_mult: float = 0.1
    """Learning rate of weights that came from --backbone_weights, as a multiple of --lr."""
    freeze_backbone: bool = False
    """Leave the layers as --backbone_weights gave them (or as they started); input projection, special tokens and heads still learn."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0: no limit."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "weight_decay", "head_lr_mult", "backbone_lr_mult", "warmup_epochs", "grad_clip")
        for name in ("beta2", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name}", f"is {getattr(self, name):g}", "give a number from 0 to below 1")
        check_positive(self, "lr")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a model is validated, and which weights are kept."""

    eval_interval: int = 1
    """Epochs between validations (the SGAR description: 10, of 100)."""
    early_stop_patience: int = 0
    """Stop after this many validations without a better one, and keep the best so far; 0: never."""
    select: Literal["last", "score", "r1"] = "last"
    """Keep the checkpoint of the last epoch (with --early_stop_patience: of the best score), or that with the best local score or the
    best text-to-motion R@1 on the held-out motions, whose score it then flatters a little."""
    save_towers: bool = False
    """Also write the weights of the kept model as motion_encoder.pt and, of a text tower that learns, clip_model_finetuned.pt, beside it.
    Always done where a pretrained text tower learns."""
    save_every: int = 0
    """Also keep a checkpoint every so many epochs, which --resume can go on from; 0: none."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "eval_interval")
        check_at_least(self, 0, "early_stop_patience", "save_every")

    @property
    def selection(self) -> Literal["last", "score", "r1"]:
        """What the epoch that is kept is chosen by."""
        return "score" if self.select == "last" and self.early_stop_patience else self.select


@dataclass(frozen=True, kw_only=True)
class SnapshotConfig:
    """What is drawn while a model trains, into its fold's folder; nothing of it changes the model."""

    save_attention: bool = False
    """Draw what [CLS] and part tokens attend to: after the first epoch, every --attn_interval epochs and after the last."""
    attn_interval: int = 10
    """Epochs between pictures of attention."""
    run_qualitative: bool = False
    """Write the qualitative analysis of the held-out motions every --qualitative_interval epochs and after the last."""
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
    "save_towers",
}
"""Settings of a run that say where and when, not what is learned: it may be resumed with others."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
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
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    machine: tyro.conf.OmitArgPrefixes[MachineConfig] = field(default_factory=MachineConfig)
    motion: tyro.conf.OmitArgPrefixes[MotionConfig] = field(default_factory=MotionConfig)
    text: tyro.conf.OmitArgPrefixes[TextConfig] = field(default_factory=TextConfig)
    loss: tyro.conf.OmitArgPrefixes[LossConfig] = field(default_factory=LossConfig)
    parts: tyro.conf.OmitArgPrefixes[PartConfig] = field(default_factory=PartConfig)
    augment: tyro.conf.OmitArgPrefixes[AugmentConfig] = field(default_factory=AugmentConfig)
    fit: tyro.conf.OmitArgPrefixes[FitConfig] = field(default_factory=FitConfig)
    optim: tyro.conf.OmitArgPrefixes[OptimConfig] = field(default_factory=OptimConfig)
    checkpoint: tyro.conf.OmitArgPrefixes[CheckpointConfig] = field(default_factory=CheckpointConfig)
    snapshots: tyro.conf.OmitArgPrefixes[SnapshotConfig] = field(default_factory=SnapshotConfig)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError("train.py", f"no variant is called {self.variant!r}", f"choose from {', '.join(VARIANTS)}")
        if self.fold not in ("all", "full") and not self.fold.isdecimal():
            raise ConfigError("--fold", f"{self.fold!r} is no fold", "give a number, all or full")
        if self.augment.mirror and self.motion.features == "raw":
            raise ConfigError("--mirror", "raw columns are not mirrored", "take --features canonical, or give --mirror 0")
        if self.parts.use_gar and self.motion.features == "raw":
            raise ConfigError("--features", "raw columns have no parts", "take --features canonical, or leave out --use_gar")
        check_process_count(self, "fold_jobs")
