"""The forecast of memory against what the real towers have and save, at tiny settings."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import helpers
from motret.config import base, presets
from motret.config.training import TrainConfig
from motret.data import batching
from motret.models import embed, registry
from motret.models.dual_encoder import DualEncoder
from motret.skeleton import PARTS
from motret.training import forecast, objective, optim
from motret.training.context import make_context
from motret.training.forecast import DataSize
from motret.utils.machine import Machine

MOTIONS, CAPTIONS = 16, 3
TINY = {
    "device": "cpu",
    "amp": "off",
    "jobs": 1,
    "batch_size": 12,
    "text_weights": "none",
    "text_width": 64,
    "text_vocabulary": 2000,
    "negative_threshold": 0.0,
    "mirror": 0.0,
    "speed": 1.0,
}
CPU = Machine("CPU", is_gpu=False, rate=1e9, product_bytes=4, available=4e9, n_cards=0)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("holistic", {}),
    ("holistic", {"width": 64, "layers": 2, "patch": 2, "token_drop": 0.0}),
    ("holistic", {"width": 64, "backbone": "motiondiffuse"}),
    ("sgar", {"width": 64}),
    ("sgar", {"width": 64, "layers": 2, "part_encoders": True}),
    ("sgar", {"width": 64, "lambda_mix": 1.0}),
    ("clip", {"width": 64, "text_width": 128, "text_layers": 4}),
    ("clip_readme", {"width": 64, "layers": 2, "max_frames": 96, "text_layers": 2}),
    ("sgar_description", {"width": 64, "layers": 2}),
]


def tiny_config(variant: str, **values: Any) -> TrainConfig:
    settings = {**presets.VARIANTS[variant], **TINY, "variant": variant, **values}
    return base.build_config(TrainConfig, settings)


def train_once(config: TrainConfig, dtype: torch.dtype | None) -> tuple[DataSize, float, int]:
    """Size of some data, and the weights and saved bytes of a step on them.

    dtype: of autocast, if any.
    """
    lengths = np.random.default_rng(0).integers(45, 135, MOTIONS)
    captions = tuple(
        tuple(
            f"two people walk to each other and wave {row} times {way}" for way in range(CAPTIONS)
        )
        for row in range(MOTIONS)
    )
    data = helpers.training_data(captions, lengths)
    texts = [caption for own in captions for caption in own]
    parts = None
    if config.parts.use_gar:
        parts = [
            {part: f"the {part} moves {row} times" for part in PARTS} for row in range(MOTIONS)
        ]
        texts += [text for own in parts for text in own.values()]
    tower = registry.make_text_tower(config.text)
    bank = embed.make_caption_bank(texts, tower, False, None, helpers.CPU)
    context = make_context(config, data, bank, parts)
    persons, columns = data.store.persons, data.store.columns
    model = DualEncoder(config, persons, columns, tower.dim, tower).train()
    optim.set_trainable(model, config.text)
    batch = next(
        batching.iterate_epoch(
            context.motions,
            context.table,
            np.arange(MOTIONS),
            config.fit.batch_size,
            batching.EpochRandom.seeded(np.random.default_rng(0), 0, helpers.CPU),
        )
    )
    words = float(np.mean([len(text.split()) for text in texts]))
    frames = float(lengths.clip(max=config.motion.max_frames).mean())
    width = data.store.features.shape[2]
    size = DataSize(MOTIONS, frames, persons, width, CAPTIONS, words)
    n_weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        saved = saved_bytes(model, lambda: objective.batch_loss(model, batch, context, config))
    return size, n_weights, saved


def saved_bytes(model: DualEncoder, step: Any) -> int:
    """Bytes of the tensors that autograd saves in a step, besides weights and buffers."""
    own = [*model.parameters(), *model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: list[Tensor] = []  # so that no memory is used a second time
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(sizes.values())


@pytest.mark.parametrize(("variant", "values"), CASES)
def test_weights_and_saved_tensors_are_about_those_of_the_towers(
    variant: str, values: dict[str, Any]
) -> None:
    config = tiny_config(variant, **values)
    size, n_weights, saved = train_once(config, None)
    assert forecast.n_weights(config, size) == pytest.approx(n_weights, rel=0.05)
    assert forecast.saved_bytes(config, size, False, 4) == pytest.approx(saved, rel=0.3)


@pytest.mark.parametrize("variant", ["holistic", "sgar", "clip"])
def test_half_precision_saves_about_as_much_less(variant: str) -> None:
    config = tiny_config(variant, width=64)
    size, _, saved = train_once(config, torch.bfloat16)
    assert forecast.saved_bytes(config, size, False, 2) == pytest.approx(saved, rel=0.3)


SIZE = DataSize(motions=1000, frames=120, persons=2, columns=300, captions=3, words=10)


def memory(machine: Machine = CPU, **values: Any) -> forecast.MemoryForecast:
    return forecast.training_memory(tiny_config("holistic", **values), SIZE, machine)


def test_memory_follows_the_settings() -> None:
    plain = memory()
    assert memory(batch_size=24).batch > 1.9 * plain.batch
    assert memory(batch_size=6, grad_accum=2).batch < plain.batch
    assert memory(grad_checkpoint=True).batch < 0.5 * plain.batch
    assert memory(ema=0.0).weights == pytest.approx(0.8 * plain.weights)
    on_gpu = memory(replace(CPU, is_gpu=True, product_bytes=2), amp="auto")
    assert plain.data == 0 and on_gpu.data == 1000 * 120 * 2 * 300 * 2


def test_time_is_that_of_the_matrix_products_within_its_limit() -> None:
    config = tiny_config("holistic", epochs=10)
    seconds = forecast.training_seconds(config, SIZE, 5, 1e9)
    assert seconds == 5 * forecast.training_seconds(config, SIZE, 1, 1e9)
    assert forecast.training_seconds(config, SIZE, 5, 1e8) > 9 * seconds
    limited = tiny_config("holistic", epochs=10, max_minutes=0.5)
    assert forecast.training_seconds(limited, SIZE, 5, 1e6) == 150


def test_the_line_of_a_run_has_time_memory_and_machine() -> None:
    line = forecast.describe_forecast(tiny_config("holistic"), SIZE, CPU, 2)
    assert line.startswith("forecast: about ") and line.endswith(" GB of 4.0 GB of memory (CPU)")
    unknown = forecast.describe_forecast(
        tiny_config("holistic"), SIZE, replace(CPU, available=None), 2
    )
    assert unknown.endswith(" GB of memory (CPU)") and " of 4.0" not in unknown


def test_a_frozen_encoder_adds_no_weights_though_no_clip_weights_are_named() -> None:
    frozen = memory(text_tower="hf:encoder", text_weights="none")
    assert frozen.weights == memory(text_weights="openai").weights
    assert frozen.weights < memory(text_weights="none", text_width=512).weights


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_precision_that_is_named_counts_on_every_machine(amp: str) -> None:
    assert memory(amp=amp).batch < memory(amp="off").batch
