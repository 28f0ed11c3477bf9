"""One model on many cards or nodes: the processes that torchrun starts, and what they exchange.

    torchrun --nproc_per_node 2 solution/train.py holistic

Each process embeds its share of every batch (`data.inputs.Shard`), gathers the embeddings of all,
and computes the loss of the whole batch; gradients are summed (`grad_cache`). So a step is that of
one process. The first process alone writes files, validates, and decides what is decided by a
clock; the others learn it from the store of torchrun.
"""

import contextlib
import functools
import itertools
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from motret.config import cli
from motret.config.training import TrainConfig
from motret.data import batching
from motret.data.inputs import Shard
from motret.errors import ConfigError, RunError, first_line
from motret.utils import files, logs, stopping
from motret.utils.device import count_cards, to_device
from motret.utils.on_error import OnError
from motret.utils.parallel import local_rank

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others in a step before it takes them for lost. A process that
has ended is noticed at once."""
REPORT_TIMEOUT = timedelta(seconds=5)
"""How long a process that ends asks which of them says why."""
POLL_SECONDS = 0.02
GRACE_SECONDS = 5.0
"""After a signal: how long a process may be stuck in an operation of all before it ends anyway."""
LOST = "torch.distributed"


@dataclass(frozen=True)
class Ranks:
    """The processes that share each batch, as one of them sees them; of one process all is its own.

    rank: of this process, counted from 0; store: where they leave each other values.
    """

    rank: int = 0
    world_size: int = 1
    store: dist.Store | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shard(self, rank: int | None = None, keeps_buckets: bool = False) -> Shard | None:
        """The share of each batch that a process embeds, by default this one; None where one
        process embeds all."""
        if self.world_size == 1:
            return None
        return Shard(self.rank if rank is None else rank, self.world_size, keeps_buckets)

    # ---- values

    def broadcast(self, make: Callable[[], T]) -> T:
        """What the first process makes, which alone calls `make`; the others wait for it, however
        long that takes."""
        if self.store is None:
            return make()
        key, store = f"value{next(self._numbers)}", cast(Any, self.store)  # its types lack bytes
        if self.is_first:
            value = make()
            with naming_lost_processes():
                store.set(key, pickle.dumps(value))
            return value
        with naming_lost_processes():
            while not store.check([key]):
                time.sleep(POLL_SECONDS)
            received: T = pickle.loads(store.get(key))
        return received

    def first_alone(self, make: Callable[[], T]) -> T:
        """What each process makes, the first one before the others, which find its files."""
        if not self.is_first:
            self.broadcast(lambda: None)
            return make()
        value = make()
        self.broadcast(lambda: None)
        return value

    def check_same(self, value: object, path: object, problem: str, fix: str) -> None:
        """RunError in every process where `value` is not the same in all."""
        if self.world_size == 1:
            return
        digest = int(files.content_hash(value)[:15], 16)
        extremes = torch.tensor([digest, -digest])
        with naming_lost_processes():
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        if int(extremes[0]) != -int(extremes[1]):
            raise RunError(str(path), problem, fix)

    # ---- tensors

    def gather(self, local: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """(n, ...) what all processes have of a batch, without a graph.

        local: (b, ...) of this process; rows: of each process the places (b,) of its values in the
        result, which need not be equally many.
        """
        sent = local.detach().to(torch.uint8) if local.dtype is torch.bool else local.detach()
        padded = sent.new_zeros(max(map(len, rows)), *local.shape[1:])
        padded[: len(local)] = sent
        received = [torch.empty_like(padded) for _ in rows]
        with naming_lost_processes():
            dist.all_gather(received, padded)
        present = torch.cat(
            [values[: len(each)] for values, each in zip(received, rows, strict=True)]
        )
        order = torch.cat(list(rows)).argsort()
        return present[to_device(order, local.device)].to(local.dtype)

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Replaces the gradients of weights by their sums over the processes. A weight has one in
        every process or in none."""
        if self.world_size == 1:
            return
        trained = [weight for weight in weights if weight.requires_grad]
        flat = torch.cat(
            [
                (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten()
                for weight in trained
            ]
        )
        with naming_lost_processes():
            dist.all_reduce(flat)
        sums = flat.split([weight.numel() for weight in trained])
        for weight, total in zip(trained, sums, strict=True):
            if weight.grad is not None:
                weight.grad = total.view_as(weight).to(weight.dtype)

    # ---- randomness, checks

    def seed_of(self, seed: int) -> int:
        """The seed of torch's own generator: another in each process, since layers such as dropout
        draw for the motions of this process alone."""
        return seed + (self.rank << 40)

    def check_state(
        self, path: object, model: nn.Module, generator: torch.Generator | None = None
    ) -> None:
        """RunError where processes have other weights, or have drawn other random numbers."""
        if self.world_size == 1:
            return
        sums = [
            int(value.detach().flatten().contiguous().view(torch.uint8).sum(dtype=torch.int64))
            for value in model.state_dict().values()
        ]
        fix = "start them on machines of one kind with the same packages and one folder of runs"
        self.check_same(sums, path, "the weights differ between the processes", fix)
        state = b"" if generator is None else generator.get_state().numpy().tobytes()
        problem = "the processes have drawn different random numbers"
        fix = "let your tower draw with batch.draw(torch.rand, ...)"
        self.check_same(state.hex(), path, problem, fix)


ONE_PROCESS = Ranks()
"""A process that trains alone."""


# ---- beginning and end


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[Ranks]:
    """The processes that torchrun has started, this one among them; one process where it has not.

    device: as --device names it. Within it the first process alone logs. An error is one line, of
    the process that had it first; so is the end of another process, within `TIMEOUT`.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if local_rank() is None or world_size == 1:
        yield ONE_PROCESS
        return
    stopping.end_with_parent()
    rank = int(os.environ["RANK"])
    if rank > 0:
        logs.show_errors_alone()
    with naming_lost_processes():
        store, _, _ = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    ranks = Ranks(rank, world_size, dist.PrefixStore("motret", store))
    with _reported_once(ranks):
        backend = _backend(device)
        with naming_lost_processes():
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", store),
                rank=rank,
                world_size=world_size,
                timeout=TIMEOUT,
            )
        fix = "give --device cpu or cuda, or repair the card"
        ranks.check_same(backend, "--device", "some processes see a card and some do not", fix)
        yield ranks
        ranks.broadcast(lambda: None)  # nobody leaves while the first still writes
        dist.destroy_process_group()


def _backend(device: str) -> str:
    """How processes exchange tensors. ConfigError where they are more than the cards."""
    n_cards = count_cards(device)
    if not n_cards:
        return "gloo"
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if n_local > n_cards:
        problem = f"{n_local} processes on this machine, which has {n_cards} for --device {device}"
        raise ConfigError("--nproc_per_node", problem, "start one for each card")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Within it, processes exchange values: an error is a RunError that says so."""
    try:
        yield
    except RuntimeError as error:
        problem = f"another process of this training has ended or is stuck ({first_line(error)})"
        fix = "see what it said, and go on with --resume; the last checkpoint is whole"
        raise RunError(LOST, problem, fix) from error


@contextlib.contextmanager
def _reported_once(ranks: Ranks) -> Iterator[None]:
    """Lets one process say why all of them end: the first that has an error, or gets a signal."""
    stop_watching = _end_when_stuck(ranks)
    try:
        with OnError(functools.partial(_report_first, ranks)):
            yield
    finally:
        stop_watching()


def _report_first(ranks: Ranks, error: BaseException) -> None:
    """Leaves the word to the process that is the first to have an error, or to get a signal."""
    if "--debug" in sys.argv or not isinstance(error, KeyboardInterrupt | Exception):
        return
    if isinstance(error, KeyboardInterrupt):
        os.environ[cli.STOPS_QUIETLY] = "1"
        _report_stop(ranks, stopping.signal_of(error))
    elif not _reports(ranks):
        raise SystemExit(1) from None
    elif "NCCL" in str(error):
        with naming_lost_processes():
            raise error


def _reports(ranks: Ranks) -> bool:
    """Whether this process is the first to say why all end; true where nobody can know."""
    assert ranks.store is not None
    try:
        ranks.store.set_timeout(REPORT_TIMEOUT)
        return ranks.store.add("reported", 1) == 1
    except RuntimeError:
        return True


def _report_stop(ranks: Ranks, number: int) -> None:
    if not _reports(ranks):
        return
    name = signal.Signals(number).name
    cause = ": torchrun was stopped, or another process has ended" * (number != signal.SIGINT)
    note = "finished work is kept, and --resume goes on"
    with contextlib.suppress(OSError):
        sys.stderr.write(f"stopped by {name}{cause}; {note}\n")
        sys.stderr.flush()


def _end_when_stuck(ranks: Ranks) -> Callable[[], None]:
    """Ends this process some seconds after a signal, although it waits for another process and so
    never sees the signal. Returns what takes that back."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

    def watch() -> None:
        while received := os.read(reading, 1):
            if received[0] in ending:
                time.sleep(GRACE_SECONDS)
                _report_stop(ranks, received[0])
                os._exit(stopping.exit_code(received[0]))

    threading.Thread(target=watch, name="ends a stuck process", daemon=True).start()

    def stop() -> None:
        signal.set_wakeup_fd(former)
        os.close(writing)

    return stop


# ---- what does not go together


def check_settings(config: TrainConfig, ranks: Ranks) -> None:
    """ConfigError where settings do not go together with several processes."""
    if ranks.world_size > 1 and config.fold_jobs != 1:
        problem = f"each fold is trained by the {ranks.world_size} processes of torchrun"
        raise ConfigError(f"--fold_jobs {config.fold_jobs}", problem, "leave it out")


def check_shard(config: TrainConfig, motions: int, ranks: Ranks) -> None:
    """ConfigError where a process would have nothing to embed. motions: to train on."""
    if ranks.world_size == 1:
        return
    size, buckets = min(config.fit.effective_batch_size, motions), n_buckets(config)
    if size // min(buckets, size) >= ranks.world_size:
        return
    problem = (
        f"a batch of {size} motions in {buckets} buckets leaves some of {ranks.world_size} "
        "processes without a motion"
    )
    least = -(-buckets * ranks.world_size // config.fit.grad_accum)
    raise ConfigError("--batch_size", problem, f"give {least} or more, or start fewer processes")


def config_of_shard(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """The settings with the batch size of one process, whose memory a forecast is of."""
    size = -(-config.fit.batch_size // ranks.world_size)
    return replace(config, fit=replace(config.fit, batch_size=size))


def n_buckets(config: TrainConfig) -> int:
    """Buckets of a batch."""
    return batching.N_LENGTH_BUCKETS * config.fit.grad_accum


def check_model(model: nn.Module, ranks: Ranks) -> None:
    """ConfigError where a layer computes with the statistics of its batch, of which a process has
    a share alone."""
    for name, layer in model.named_modules():
        if ranks.world_size > 1 and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            problem = f"{name} is a BatchNorm, whose statistics would be those of one process"
            raise ConfigError("torchrun", problem, "train in one process, or use LayerNorm")
