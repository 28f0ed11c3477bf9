"""Training throughput, as a share of the rate that the machine's matrix products reach.

Counted are the floating-point operations (FLOP) of real tokens: padding is not work.
"""

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
from motret.data.batching import Batch, EpochRandom
from motret.data.dataset import TrainingData
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig, feature_width
from motret.data.inputs import CaptionBank
from motret.formats.challenge import TrainingSet
from motret.models.dual_encoder import DualEncoder
from motret.training import context as train_context
from motret.training import fit, objective, optim
from motret.training.context import TrainContext
from motret.training.state import FoldState
from motret.utils.device import choose_device, matmul_dtype, matrix_rate, synchronized_clock

MIN_TOKENS, MAX_TOKENS = 20, 75
"""Motion tokens of a person."""
TEXT_DIM = 512
CAPTIONS = 3
WIDTH_512 = {"width": 512, "layers": 4, "heads": 8, "mlp_ratio": 4.0, "token_drop": 0.0}
TINY = {"width": 32, "layers": 1, "heads": 2}
"""Instead, with --quick."""
NO_AUGMENTATION = {"mirror": 0.0, "speed": 1.0}
"""Motions keep the lengths that they are generated with."""
MAX_STEPS, REPEATS = 4, 3
"""Most steps of an epoch; the fastest of `REPEATS` epochs counts."""
MAX_MOTIONS = {"cpu": 512, "cuda": 4096}
"""Most motions of an epoch, a batch at least, by device."""
BATCH_SIZES = {"cpu": (64, 256), "cuda": (256, 1024)}
"""Batches of the model of fixed shape, by device."""
MATRIX_SIZES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
"""Sides of the square matrices whose product is timed."""
GOALS = {"cpu": 0.5, "cuda": 0.4}


def measure_throughput(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Utilization: a model of fixed shape at two sizes of batches, and the default model."""
    del scratch
    device = choose_device(config.machine.device)
    clock, dtype = synchronized_clock(device), matmul_dtype(device)
    sizes = (64,) if config.quick else MATRIX_SIZES[device.type]
    peak = matrix_rate(device, dtype, sizes, clock)
    dtype_name = str(dtype).removeprefix("torch.")
    measurements = [Measurement(f"matrix products in {dtype_name}", f"{peak / 1e9:.0f} GFLOP/s")]
    shapes = {"width 512": WIDTH_512 | (TINY if config.quick else {}), "default model": {}}
    batch_sizes = (4,) if config.quick else BATCH_SIZES[device.type]
    cases = [("width 512", batch_size) for batch_size in batch_sizes]
    if not config.quick:
        cases.append(("default model", 64))
    for name, batch_size in cases:
        settings = {
            "max_frames": MAX_TOKENS * MotionConfig().patch,
            "batch_size": batch_size,
            "device": device.type,
        }
        values = shapes[name] | NO_AUGMENTATION | settings
        flop, seconds = epoch_cost(base.build_config(TrainConfig, values), clock)
        fraction = utilization(flop, seconds, peak)
        what = f"training, {name}, batches of {batch_size}: share of that rate"
        value = f"{fraction:.0%} ({flop / seconds / 1e9:.0f} GFLOP/s)"
        if name == "width 512":
            goal = GOALS[device.type]
            measurements.append(Measurement(what, value, f">= {goal:.0%}", fraction >= goal))
        else:
            measurements.append(Measurement(what, value))
    return measurements


def utilization(flop: float, seconds: float, peak: float) -> float:
    """Share of a peak rate, in FLOP/s, that so many operations in so many seconds reach."""
    return flop / seconds / peak


def count_flop(work: Callable[[], object]) -> int:
    """FLOP of the matrix products of some work, forward and backward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def epoch_cost(config: TrainConfig, clock: Callable[[], float]) -> tuple[int, float]:
    """FLOP of the real tokens of a short epoch of random motions, and its seconds.

    The seconds are those of the fastest of `REPEATS` epochs.
    """
    batch_size = config.fit.batch_size
    max_motions = MAX_MOTIONS[choose_device(config.machine.device).type]
    n_motions = batch_size * min(MAX_STEPS, max(1, max_motions // batch_size))
    context, model = synthetic_setup(config, n_motions)
    motion_idx = np.arange(n_motions)
    state = FoldState(model, optim.make_optimizer(model, config), context.make_scaler())

    def batches() -> Iterator[Batch]:
        random = EpochRandom.seeded(np.random.default_rng(0), 0, context.device)
        return batching.iterate_epoch(
            context.motions, context.table, motion_idx, batch_size, random
        )

    model.train()
    flop = sum(real_flop(model, batch, context, config) for batch in batches())
    fastest = float("inf")
    for _ in range(REPEATS):
        start = clock()
        for batch in batches():
            fit.train_step(state, batch, context, config, 1.0)
        fastest = min(fastest, clock() - start)
    return flop, fastest


def real_flop(model: DualEncoder, batch: Batch, context: TrainContext, config: TrainConfig) -> int:
    """FLOP of a step on a batch without padding: only motions of one length are put together."""
    lengths = context.motions.lengths[batch.train_idx]  # sorted
    counts = lengths.unique_consecutive(return_counts=True)[1].tolist()
    noise = batch.buckets[0].generator
    buckets = tuple(context.motions.gather(idx, noise) for idx in batch.train_idx.split(counts))
    unpadded = replace(batch, buckets=buckets)
    flop = count_flop(
        lambda: objective.batch_loss(model, unpadded, context, config).total.backward()
    )
    model.zero_grad(set_to_none=True)
    return flop


def synthetic_setup(config: TrainConfig, n_motions: int) -> tuple[TrainContext, DualEncoder]:
    """Random motions of MIN_TOKENS to MAX_TOKENS tokens a person, and a model for them.

    Their captions are random vectors, as a frozen text tower gives them.
    """
    rng = np.random.default_rng(0)
    lengths = config.motion.patch * rng.integers(MIN_TOKENS, MAX_TOKENS + 1, n_motions)
    features = rng.normal(size=(int(lengths.sum()), 2, feature_width(2))).astype(np.float16)
    ids = tuple(f"{index:05d}" for index in range(n_motions))
    offsets = lengths.cumsum() - lengths
    store = FeatureStore(Path(), FeatureConfig(), ids, offsets, lengths, ids, features, ())
    captions = tuple(
        tuple(f"{motion_id} caption {number}" for number in range(CAPTIONS)) for motion_id in ids
    )
    training = TrainingSet(Path(), ids, (), captions, None, ())
    data = TrainingData(training, store, "generated", True)
    texts = [caption for motion_captions in captions for caption in motion_captions]
    index = {caption: number for number, caption in enumerate(texts)}
    bank = CaptionBank(index, vectors=_random_vectors(rng, len(index)))
    context = train_context.make_context(config, data, bank)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DualEncoder(config, 2, store.columns, TEXT_DIM)
    return context, model.to(context.device)


def _random_vectors(rng: np.random.Generator, count: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=(count, TEXT_DIM)).astype(np.float32))
