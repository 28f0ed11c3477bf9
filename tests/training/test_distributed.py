"""One model in several processes: the same steps as in one, and an end in one line."""

import gc
import json
import math
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import helpers
import train
from motret.config.training import TrainConfig
from motret.data import batching
from motret.data.inputs import CaptionBank, MotionBatch, Shard
from motret.errors import ConfigError, RunError
from motret.models.dual_encoder import DualEncoder
from motret.models.motion_tower import MotionTransformer
from motret.runs import checkpoints, history
from motret.training import context as context_module
from motret.training import distributed, fit, grad_cache, validate
from motret.training.context import FoldContext
from motret.training.distributed import ONE_PROCESS, Ranks
from motret.utils import files
from motret.utils import parallel as parallel_module
from training.test_grad_cache import part_texts

ROOT = Path(__file__).resolve().parents[2]
DRAWS = {
    "token_drop": 0.5,
    "noise": 0.1,
    "frame_mask": 0.1,
    "crop": 0.2,
    "speed": 1.2,
    "caption_mix": 0.3,
    "captions": "all",
}
"""Settings under which a step draws random numbers of every kind but a mirror's."""
SGAR = {
    "motion_tower": "part",
    "use_gar": True,
    "part_encoders": True,
    "part_token_drop": 0.4,
    "token_drop": 0.0,
    "lambda_mix": 0.5,
    "lambda_direction": 0.1,
    "captions": "random",
}
SECONDS = 180
"""How long processes may take: far more than they need."""


def on_ranks(folder: Path, count: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What `work` returns in each of so many processes; the line of an error in its place."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    fork = multiprocessing.get_context("fork")

    def begin(rank: int) -> None:
        gc.freeze()  # a store that a failed test left has threads here no more, so it cannot end
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        torch.set_num_threads(1)
        result: Any = None
        try:
            with distributed.join_processes("cpu") as ranks:
                result = work(ranks)
        except (RunError, ConfigError, SystemExit) as error:
            result = f"{type(error).__name__}: {error}"
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        torch.save(result, folder / f"rank{rank}.pt")
        os._exit(0)

    children = [fork.Process(target=begin, args=(rank,)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(SECONDS)
    assert not any(child.is_alive() for child in children)
    return [
        torch.load(path, weights_only=False) if path.exists() else None
        for path in (folder / f"rank{rank}.pt" for rank in range(count))
    ]


def fold_of(folder: Path, chosen: TrainConfig, ranks: Ranks) -> FoldContext:
    """A fold that trains on 20 of 40 motions in memory."""
    captions = [[f"motion {row} told {way}" for way in range(1 + row % 3)] for row in range(40)]
    data = helpers.training_data(tuple(map(tuple, captions)))
    parts = part_texts(40) if chosen.parts.use_gar else None
    context = context_module.make_context(chosen, data, helpers.bank(data), parts)
    run = helpers.make_run(folder, chosen, data)
    split = helpers.folds(40)
    return helpers.fold_context(run, data, context=replace(context, ranks=ranks), split=split)


def never(*_args: object, **_options: object) -> None:
    raise AssertionError("the first process alone does this")


# ---- the same as one process


def gradients(folder: Path, chosen: TrainConfig, ranks: Ranks) -> dict[str, Tensor]:
    """The loss and its gradients for one batch of 18 motions, and what the generator says next."""
    fold = fold_of(folder, chosen, ranks)
    model = checkpoints.build_model(
        chosen, fold.run, fold.data.store.columns, helpers.NoTower(), 0
    ).train()
    noise = torch.Generator().manual_seed(3)
    shard = ranks.shard(keeps_buckets=chosen.parts.lambda_mix > 0)
    batch = next(
        batching.iterate_epoch(
            fold.context.motions,
            fold.context.table,
            np.arange(40),
            18,
            batching.EpochRandom(np.random.default_rng(1), noise, noise),
            distributed.n_buckets(chosen),
            fold.context.augmentation,
            shard,
        )
    )
    loss = grad_cache.backward(model, batch, fold.context, chosen, fold.context.make_scaler())
    grads = {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }
    return grads | {"loss": loss.total, "next": torch.rand(3, generator=noise)}


@pytest.mark.parametrize(
    ("count", "values"),
    [(2, DRAWS), (4, DRAWS | {"grad_accum": 2}), (4, SGAR), (2, SGAR | {"grad_accum": 2})],
    ids=["2", "4 accumulated", "4 of sgar", "2 of sgar accumulated"],
)
def test_gradients_are_those_of_one_process(tmp_path, count, values):
    """Not scaled by the number of processes, and with those of other processes' negatives."""
    chosen = helpers.config(**values)
    whole = gradients(tmp_path, chosen, ONE_PROCESS)
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-2
    assert float(whole["log_scale"].abs()) > 1e-3
    for shared in on_ranks(tmp_path, count, lambda ranks: gradients(tmp_path, chosen, ranks)):
        assert shared.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(shared[name], gradient, atol=2e-5, rtol=1e-4, msg=name)
        assert torch.equal(shared["next"], whole["next"])


@pytest.mark.parametrize(
    ("count", "values"),
    [(2, DRAWS), (4, DRAWS | {"grad_accum": 2}), (3, SGAR)],
    ids=["2", "4 accumulated", "3 of sgar"],
)
def test_training_of_twenty_steps_is_that_of_one_process(tmp_path, count, values):
    """Slices of 5 motions by 2, 3 or 4 are unequal. The others neither validate nor write."""
    chosen = helpers.config(**{"batch_size": 10, "epochs": 10, "ema": 0.9} | values)
    if chosen.fit.grad_accum > 1:
        chosen = replace(chosen, fit=replace(chosen.fit, epochs=20))
    one = fold_of(tmp_path / "one", chosen, ONE_PROCESS)
    score = fit.fit(one)

    def work(ranks: Ranks) -> object:
        if not ranks.is_first:
            validate.embed_out_of_fold = files.atomic_write = files.make_dir = never
        return fit.fit(fold_of(tmp_path / "many", chosen, ranks))

    scores = on_ranks(tmp_path, count, work)
    many = fold_of(tmp_path / "many", chosen, ONE_PROCESS)
    expected, found = (
        checkpoints.load_checkpoint(fold.fold_dir / "last.pt", helpers.CPU) for fold in (one, many)
    )
    for part in ("model", "ema"):
        for name, weight in expected[part].items():
            torch.testing.assert_close(found[part][name], weight, atol=3e-5, rtol=1e-4, msg=name)
    assert [each.mean for each in scores] == pytest.approx([score.mean] * count, abs=1e-6)
    for before, now in zip(
        history.read_metrics(one.fold_dir / "metrics.csv"),
        history.read_metrics(many.fold_dir / "metrics.csv"),
        strict=True,
    ):
        assert now.train_loss == pytest.approx(before.train_loss, abs=1e-4)
        assert now.val_loss == pytest.approx(before.val_loss, abs=1e-4)


def test_rows_are_gathered_to_their_places(tmp_path):
    """Process 0 has 4 rows, process 1 has 3; the gradient of neither is followed."""
    places = [torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5])]

    def work(ranks: Ranks) -> list[Tensor]:
        own = places[ranks.rank]
        vectors = torch.stack([own, 10 * own], dim=1).float().requires_grad_()
        return [ranks.gather(vectors, places), ranks.gather(own % 2 == 0, places)]

    for vectors, even in on_ranks(tmp_path, 2, work):
        assert vectors.tolist() == [[row, 10 * row] for row in range(7)]
        assert not vectors.requires_grad
        assert even.tolist() == [True, False] * 3 + [True]


def test_what_is_drawn_for_a_bucket_does_not_depend_on_who_shares_it():
    generator = torch.Generator()
    bucket = MotionBatch(torch.zeros(7, 4, 2, 3), torch.full((7,), 4), generator)
    generator.manual_seed(5)
    whole = bucket.draw(torch.randn, 3)
    for rank in range(3):
        generator.manual_seed(5)
        drawn = bucket.take(Shard(rank, 3)).draw(torch.randn, 3)
        assert torch.equal(drawn, whole[rank::3])


def test_words_are_dropped_alike_and_each_caption_is_encoded_by_its_process():
    chosen = helpers.config(**helpers.SCRATCH, word_dropout=0.4)

    class CountingTower(nn.Module):
        dim = 4

        def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
            total = (ids * (torch.arange(ids.shape[1]) < lengths[:, None])).sum(dim=1)
            return torch.stack([total, lengths, total * 2, -lengths], dim=1).float()

    lengths = torch.arange(3, 12)
    bank = CaptionBank({}, ids=torch.arange(9 * 12).view(9, 12), lengths=lengths)
    columns = helpers.training_data().store.columns
    model = DualEncoder(chosen, 2, columns, 4, CountingTower())
    indices = torch.tensor([4, 0, 8, 4, 2, 7, 1])
    draw = torch.Generator()

    def encode(own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        draw.manual_seed(2)
        vectors = model.encode_captions(bank, indices, draw, own)
        return vectors, torch.rand(2, generator=draw)

    whole, following = encode()
    for own in (torch.tensor([0, 3, 6]), torch.tensor([2]), torch.arange(7)):
        vectors, next_numbers = encode(own)
        torch.testing.assert_close(vectors, whole[own])
        assert torch.equal(next_numbers, following)


# ---- what is refused


class CarelessTower(MotionTransformer):
    """Draws for the motions that it gets, so that processes draw differently many numbers."""

    def forward(self, batch: MotionBatch) -> Tensor:
        pooled = super().forward(batch)
        if batch.generator is None:
            return pooled
        return pooled * (1 + torch.rand(len(pooled), 1, generator=batch.generator))


def test_a_tower_that_draws_for_its_own_rows_stops_the_training(tmp_path):
    chosen = helpers.config(motion_tower=f"{__name__}:CarelessTower", batch_size=10)
    lines = on_ranks(tmp_path, 2, lambda ranks: fit.fit(fold_of(tmp_path, chosen, ranks)))
    said = [line for line in lines if "different random numbers" in line]
    assert len(said) == 1 and "batch.draw" in said[0]
    assert not list(tmp_path.rglob("last.pt"))


def test_a_process_that_ends_without_a_word_is_noticed(tmp_path):
    chosen = helpers.config(batch_size=10, epochs=1000)

    def work(ranks: Ranks) -> object:
        if ranks.rank == 1:
            os._exit(9)
        return fit.fit(fold_of(tmp_path, chosen, ranks))

    first, _ = on_ranks(tmp_path, 2, work)
    assert first.startswith(
        "RunError: torch.distributed: another process of this training has ended"
    )
    assert "--resume" in first and "\n" not in first


def test_processes_with_other_data_stop(tmp_path):
    def work(ranks: Ranks) -> None:
        ranks.check_same("same", "data", "differ", "share them")
        ranks.check_same(ranks.rank, "data", "differ", "share them")

    lines = on_ranks(tmp_path, 3, work)
    assert sorted(lines) == [
        "RunError: data: differ (share them)",
        "SystemExit: 1",
        "SystemExit: 1",
    ]


MANY = Ranks(0, 4)


def test_folds_side_by_side_are_refused():
    with pytest.raises(ConfigError, match="--fold_jobs 2: each fold is trained by the 4 processes"):
        distributed.check_settings(helpers.config(fold_jobs=2), MANY)
    distributed.check_settings(helpers.config(fold_jobs=2), ONE_PROCESS)


@pytest.mark.parametrize(("size", "accumulated"), [(7, 1), (3, 2)])
def test_a_batch_with_too_few_motions_says_how_many_it_takes(size, accumulated):
    chosen = helpers.config(batch_size=size, grad_accum=accumulated)
    with pytest.raises(ConfigError, match="--batch_size") as caught:
        distributed.check_shard(chosen, 100, MANY)
    least = int(caught.value.fix.split()[1])
    distributed.check_shard(replace(chosen, fit=replace(chosen.fit, batch_size=least)), 100, MANY)
    with pytest.raises(ConfigError):
        distributed.check_shard(
            replace(chosen, fit=replace(chosen.fit, batch_size=least - 1)), 100, MANY
        )


def test_a_layer_with_statistics_of_its_batch_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match="1 is a BatchNorm"):
        distributed.check_model(model, MANY)
    distributed.check_model(model, ONE_PROCESS)


def test_more_processes_than_cards_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "count_cards", lambda _device: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 processes on this machine, which has 2"):
        distributed._backend("cuda")


def test_the_card_of_a_process_is_its_local_rank(monkeypatch):
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert parallel_module.local_rank() is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert parallel_module.local_rank() == 1


def test_processes_draw_different_dropout():
    seeds = {Ranks(rank, 4).seed_of(7) for rank in range(4)}
    assert len(seeds) == 4 and 7 in seeds and max(seeds) < math.inf


# ---- the command line


def launch(count: int, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """train.py under torchrun, with its output."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={count}", str(ROOT / "solution/train.py"), *flags]
    places = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command,
        env={**os.environ, **places, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def said(output: str) -> list[str]:
    """The lines that say why a training ended."""
    return [line for line in output.splitlines() if line.startswith(("error:", "stopped"))]


def test_a_killed_process_ends_all_and_another_number_goes_on(tmp_path, monkeypatch):
    """Two processes, one of which dies in the third epoch; four go on. The end is that of one that
    was never stopped."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    tower = "dying_tower:DyingTower"
    values = {
        "text_vocabulary": 1024,
        "motion_tower": tower,
        "batch_size": 8,
        "epochs": 4,
        "fold": 0,
        "mirror": 0.5,
        "speed": 1.2,
        "word_dropout": 0.2,
    }
    flags = helpers.train_flags(tmp_path, "many", **values)
    broken = launch(2, *flags, DYING_TOWER_RANK="1")
    assert broken.returncode != 0
    assert len(said(broken.stdout + broken.stderr)) == 1, broken.stdout + broken.stderr
    fold_dir = tmp_path / "many/fold0"
    assert len(checkpoints.load_checkpoint(fold_dir / "last.pt", helpers.CPU)["history"]) == 2
    assert json.loads((tmp_path / "many/args.json").read_text())["world_size"] == 2

    resumed = launch(4, "--resume", str(tmp_path / "many"), "--allow_towers", tower)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("fold0 epoch 4") == 1  # the first process alone speaks
    content = json.loads((tmp_path / "many/args.json").read_text())
    assert content["world_size"] == 4
    assert content["went_on"][0]["before"] == {"world_size": 2}

    assert train.main(helpers.train_flags(tmp_path, "one", **values)) == 0
    assert json.loads((tmp_path / "one/args.json").read_text())["world_size"] == 1
    expected, found = (
        checkpoints.load_checkpoint(tmp_path / name / "fold0/last.pt", helpers.CPU)["model"]
        for name in ("one", "many")
    )
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=3e-5, rtol=1e-4, msg=name)
    assert (fold_dir / "oof.npz").is_file()


def test_an_error_of_all_processes_is_said_once(tmp_path):
    ended = launch(2, *helpers.train_flags(tmp_path, "run", fold_jobs=2))
    lines = said(ended.stdout + ended.stderr)
    assert len(lines) == 1 and "--fold_jobs 2" in lines[0]
    assert ended.returncode != 0 and not (tmp_path / "run").exists()
