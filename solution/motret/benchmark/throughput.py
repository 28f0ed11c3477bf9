"""Training throughput: the operations that real tokens ask for a second, as a share of what the machine's matrix products reach."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from motret.benchmark.harness import Measurement
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.config.training import MotionConfig, TrainConfig
from motret.data import batching
from motret.data.batching import Batch
from motret.data.dataset import TrainingData
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.data.features import feature_width as features_width
from motret.data.inputs import CaptionBank
from motret.formats.challenge import TrainingSet
from motret.models.dual_encoder import DualEncoder
from motret.training import context, fit, objective, optim
from motret.training.context import TrainContext
from motret.utils.device import choose_device, matmul_dtype, matrix_rate, synchronized_clock

TOKENS = (20, 75)
"""Tokens of a person, from and to."""
TEXT_DIM = 512
CAPTIONS = 3
SHAPE = {"width": 512, "layers": 4, "heads": 8, "mlp_ratio": 4.0, "token_drop": 0.0}
TINY = {"width": 32, "layers": 1, "heads": 2}
"""Instead, with --quick."""
AS_THEY_ARE = {"mirror": 0.0, "speed": 1.0}
"""Motions keep their lengths, which are what is asked for."""
STEPS, MOTIONS, REPEATS = 4, 512, 3
"""An epoch has that many batches, fewer where they would hold more motions; the fastest of some epochs counts."""
SIZES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
"""Sides of the square matrices whose product is timed."""
GOALS = {"cpu": 0.5, "cuda": 0.4}


def measure_throughput(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Shares at batches of 64 and 256 motions of a fixed shape, and for the default model."""
    del scratch
    device = choose_device(config.machine.device)
    now, kind = synchronized_clock(device), matmul_dtype(device)
    rate = matrix_rate(device, kind, (64,) if config.quick else SIZES[device.type], now)
    called = str(kind).removeprefix("torch.")
    readings = [Measurement(f"matrix products in {called}", f"{rate / 1e9:.0f} GFLOP/s")]
    shapes = {"width 512": SHAPE | (TINY if config.quick else {}), "default model": {}}
    longest = TOKENS[1] * MotionConfig().patch
    sizes = [("width 512", 64), ("width 512", 256), ("default model", 64)]
    for name, size in [("width 512", 4)] if config.quick else sizes:
        values = shapes[name] | AS_THEY_ARE | {"max_frames": longest, "batch_size": size, "device": device.type}
        flops, seconds = epoch_cost(base.build_config(TrainConfig, values), now)
        found, goal = utilization(flops, seconds, rate), GOALS[device.type]
        what = f"training, {name}, batches of {size}: share of that rate"
        value = f"{found:.0%} ({flops / seconds / 1e9:.0f} GFLOP/s)"
        readings.append(Measurement(what, value, f">= {goal:.0%}", found >= goal) if name == "width 512" else Measurement(what, value))
    return readings


def utilization(flops: float, seconds: float, rate: float) -> float:
    """Part of a rate in operations a second that so many operations in so many seconds are."""
    return flops / seconds / rate


def count_flops(work: Callable[[], object]) -> int:
    """Operations of the matrix products of some work, forward and backward; a multiplication and an addition count as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def epoch_cost(config: TrainConfig, now: Callable[[], float]) -> tuple[int, float]:
    """Operations on real tokens in a short epoch of generated motions, and the seconds of the fastest of some such epochs."""
    motions = config.fit.batch_size * min(STEPS, max(1, MOTIONS // config.fit.batch_size))
    place, model = synthetic_setup(config, motions)
    optimiser, rows = optim.make_optimizer(model, config), np.arange(motions)

    def epoch() -> Iterator[Batch]:
        order, noise = np.random.default_rng(0), torch.Generator(place.device).manual_seed(0)
        return batching.iterate_epoch(place.motions, place.table, rows, config.fit.batch_size, order, noise)

    model.train()
    flops = sum(real_flops(model, batch, place, config) for batch in epoch())
    fastest = float("inf")
    for _ in range(REPEATS):
        start = now()
        for batch in epoch():
            fit.train_step(model, optimiser, batch, place, config, 1.0)
        fastest = min(fastest, now() - start)
    return flops, fastest


def real_flops(model: DualEncoder, batch: Batch, place: TrainContext, config: TrainConfig) -> int:
    """Operations of a step on a batch when motions of one length alone are computed together, so that nothing is padding."""
    lengths = place.motions.lengths[batch.train_idx]  # sorted
    together = lengths.unique_consecutive(return_counts=True)[1].tolist()
    pieces = tuple(place.motions.gather(rows, batch.buckets[0].generator) for rows in batch.train_idx.split(together))
    alike = replace(batch, buckets=pieces)
    flops = count_flops(lambda: objective.batch_loss(model, alike, place, config).backward())
    model.zero_grad(set_to_none=True)
    return flops


def synthetic_setup(config: TrainConfig, motions: int) -> tuple[TrainContext, DualEncoder]:
    """Generated motions of `TOKENS` tokens a person, with captions as a frozen tower gives them, and a model for them."""
    rng = np.random.default_rng(0)
    lengths = config.motion.patch * rng.integers(TOKENS[0], TOKENS[1] + 1, motions)
    features = rng.normal(size=(int(lengths.sum()), 2, features_width(2))).astype(np.float16)
    ids = tuple(f"{row:05d}" for row in range(motions))
    packed = FeatureStore(Path(), FeatureConfig(), ids, lengths.cumsum() - lengths, lengths, ids, features, ())
    captions = tuple(tuple(f"{name} told {way}" for way in range(CAPTIONS)) for name in ids)
    data = TrainingData(TrainingSet(Path(), ids, (), captions, None, ()), packed, "generated", True)
    index = {caption: row for row, caption in enumerate(caption for own in captions for caption in own)}
    bank = CaptionBank(index, vectors=_random_vectors(rng, len(index)))
    place = context.make_context(config, data, bank)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return place, DualEncoder(config, 2, packed.columns, TEXT_DIM).to(place.device)


def _random_vectors(rng: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=(count, TEXT_DIM)).astype(np.float32))
