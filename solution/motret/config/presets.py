"""Two tables of settings by name: variants (kinds of models) and presets (machine and data)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from motret.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """Defaults for a kind of machine and data."""

    variants: tuple[str, ...]
    """Variants that run_all.sh trains."""
    values: Mapping[str, Any]
    """Setting of train.py -> value, for every variant."""
    tuning: Mapping[str, Any]
    """Setting of tune.py -> value."""
    by_variant: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variant -> settings of train.py that hold for it alone."""
    ensemble: Mapping[str, str] = field(default_factory=dict)
    """Flag -> value that run_all.sh passes to ensemble.py."""
    parallel: bool = False
    """Whether run_all.sh trains runs in parallel, one per core. Small models leave cores idle."""
    tuned_variants: int | None = None
    """Number of variants to tune, the first ones. None: all."""

    def values_of(self, variant: str) -> dict[str, Any]:
        """Setting of train.py -> value, for a variant."""
        return {**self.values, **self.by_variant.get(variant, {})}


def check_variants(names: Iterable[str], flag: str) -> None:
    """ConfigError for the first name that is no variant. flag: the flag or script that takes it."""
    for name in names:
        if name not in VARIANTS:
            fix = f"choose from {', '.join(VARIANTS)}"
            raise ConfigError(flag, f"no variant is called {name!r}", fix)


def find_preset(name: str) -> Preset:
    """The preset of this name. ConfigError where there is none."""
    if name not in PRESETS:
        fix = f"choose from {', '.join(PRESETS)}"
        raise ConfigError("--preset", f"no preset is called {name!r}", fix)
    return PRESETS[name]


VARIANTS: dict[str, dict[str, Any]] = {
    "holistic": {},
    "sgar": {"motion_tower": "part", "use_gar": True},
    "clip": {"unfreeze_text": True, "freeze_text_epochs": 1, "layer_decay": 0.8},
    "clip_readme": {  # the challenge README's recipe, with the defaults of the libraries it names
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
    # the SGAR description's recipe: MotionDiffuse's published layers, one frame per token
    "sgar_description": {
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
"""Variant -> the settings in which it differs from the defaults. Add your own model here."""

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
            "clip": {
                "text_layers": 2,
                "text_pool": "end",
                "text_activation": "quick_gelu",
                "patch": 8,
            },
        },
        tuning={
            "trials": 10,
            "max_minutes": 2.5,
            "trial_epochs": 6,
            "confirm_folds": 1,
            "search": "tau,lr,head_lr_mult",
        },
        ensemble={"views": "mirror"},
        parallel=True,
        tuned_variants=1,
    ),
    "full": Preset(
        variants=("holistic", "sgar", "clip"),
        values={"folds": 5},
        tuning={"trials": 20, "max_minutes": 30.0},
    ),
}
"""Preset -> its tables. `Preset.values_of` gives the settings of a variant."""
