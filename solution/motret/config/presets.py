"""config.presets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
    "sgar": {"motion_tower": "part", "use_gar": True},
    "clip": {"unfreeze_text": True, "freeze_text_epochs": 1, "layer_decay": 0.8},
    "clip_readme": {  # the challenge README's recipe, its defaults being those of the libraries it names
        "mirror": 0.0,
        "speed": 1.0,
        "ema": 0.0,
        "motion_tower": "frame",
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
        "save_towers": True,
    },
    "sgar_description": {  # the SGAR description's recipe; layers as MotionDiffuse publishes them, frames one by one
        "mirror": 0.0,
        "speed": 1.0,
        "ema": 0.0,
        "motion_tower": "part",
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
