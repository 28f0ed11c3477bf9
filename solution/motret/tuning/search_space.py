"""What tuning searches: a table of settings for each variant."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from motret.config import base
from motret.config.training import TrainConfig
from motret.errors import ConfigError
from motret.models import text_tower


def always(_: TrainConfig) -> bool:
    """For settings that every configuration uses."""
    return True


def _filters_negatives(config: TrainConfig) -> bool:
    return not text_tower.trains_from_scratch(config.text) and config.loss.negative_threshold > 0


def _fine_tunes_text(config: TrainConfig) -> bool:
    return text_tower.is_fine_tuned(config.text)


def _starts_from_published_backbone(config: TrainConfig) -> bool:
    return config.motion.backbone_weights is not None and not config.optim.freeze_backbone


def _uses_part_texts(config: TrainConfig) -> bool:
    return config.parts.use_gar


@dataclass(frozen=True)
class Range:
    """Numbers from low to high.

    log: uniform in their logarithm; when: whether a configuration uses the setting.
    """

    low: float
    high: float
    log: bool = False
    when: Callable[[TrainConfig], bool] = always

    def around(self, default: Any) -> "Range":
        """The same, wide enough to hold the default."""
        return replace(self, low=min(self.low, default), high=max(self.high, default))

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Categorical:
    """One of some values. when: whether a configuration uses the setting."""

    values: tuple[Any, ...]
    when: Callable[[TrainConfig], bool] = always

    def around(self, default: Any) -> "Categorical":
        """The same, with the default among its values."""
        return self if default in self.values else replace(self, values=(*self.values, default))

    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        return CategoricalDistribution(self.values)


Space = Mapping[str, Range | Categorical]

SHARED: Space = {
    "tau": Range(0.02, 0.2, log=True),
    "learn_tau": Categorical((True, False)),
    "lr": Range(1e-4, 3e-3, log=True),
    "text_lr_mult": Range(0.02, 0.5, log=True, when=_fine_tunes_text),
    "head_lr_mult": Range(0.3, 3.0, log=True),
    "backbone_lr_mult": Range(0.01, 1.0, log=True, when=_starts_from_published_backbone),
    "token_drop": Range(0.0, 0.75),
    "label_smoothing": Range(0.0, 0.2),
    "negative_threshold": Range(0.6, 1.0, when=_filters_negatives),
    "patch": Categorical((4, 6, 8, 12)),
}
"""The table of every variant without a table in `SPACES`."""

SPACES: dict[str, Space] = {
    "sgar": {
        **SHARED,
        "lambda_part": Range(0.1, 2.0, log=True, when=_uses_part_texts),
        "tau_prime": Range(0.02, 0.15, log=True, when=_uses_part_texts),
        "lambda_direction": Range(0.0, 0.3, when=_uses_part_texts),
        "lambda_mix": Categorical((0.0, 0.25, 0.5), when=_uses_part_texts),
    },
    "sgar_description": {
        **{name: SHARED[name] for name in ("tau", "learn_tau", "head_lr_mult", "label_smoothing")},
        "lr": Range(3e-5, 1e-3, log=True),
        "lambda_part": Range(0.1, 2.0, log=True, when=_uses_part_texts),
        "tau_prime": Range(0.02, 0.15, log=True, when=_uses_part_texts),
    },
    "clip": {**SHARED, "layer_decay": Range(0.6, 1.0, when=_fine_tunes_text)},
    "clip_readme": {
        **{name: SHARED[name] for name in ("tau", "learn_tau", "text_lr_mult", "label_smoothing")},
        "lr": Range(3e-5, 1e-3, log=True),
    },
}
"""Variant -> its table."""


def space_of(
    config: TrainConfig, fixed: Collection[str] = (), only: Collection[str] = ()
) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """What is searched for these settings, and their values: the default configuration, which lies
    inside the space.

    fixed: settings that are not searched; only: if any are named, the only ones to search.
    ConfigError for a name that is not in the variant's table.
    """
    values = base.flatten(config)
    table = SPACES.get(config.variant, SHARED)
    if unknown := [name for name in only if name not in table]:
        problem = f"{unknown[0]!r} is not among what is searched for {config.variant}"
        raise ConfigError("--search", problem, f"choose from {', '.join(table)}")
    searched = {
        name: entry
        for name, entry in table.items()
        if name not in fixed and entry.when(config) and (not only or name in only)
    }
    distributions = {
        name: entry.around(values[name]).distribution() for name, entry in searched.items()
    }
    return distributions, {name: values[name] for name in searched}
