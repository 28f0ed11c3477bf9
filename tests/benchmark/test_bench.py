"""The benchmark: counts by hand, clocks that are told the time, and the script on tiny sizes."""

import contextlib
import io
import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bench
import ensemble
import helpers
import train
from motret.benchmark import baselines, harness, throughput, time_to_score
from motret.benchmark import memory as memory_module
from motret.benchmark.baselines import Growth
from motret.benchmark.harness import Measurement, SubprocessError, TimedProcess
from motret.benchmark.memory import FRAMES, measure_memory, measure_validation, write_random_motions, write_random_run
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.data import batching, dataset
from motret.data.features import feature_width as features_width
from motret.errors import DataError
from motret.evaluation import local_score
from motret.formats.queries import read_queries
from motret.runs.run import open_run
from motret.training import objective

MODEL = {"width": 16, "heads": 2, "layers": 1, "cross_person_layers": 0, "proj_dim": 8, "amp": "off", "batch_size": 8, "epochs": 2}


def ticking(step=1.0):
    """A clock that goes on by `step` seconds whenever it is asked."""
    return itertools.count(0, step).__next__


# ---- throughput


def test_the_operations_of_a_layer_are_those_counted_by_hand():
    layer, rows = torch.nn.Linear(30, 50), torch.randn(7, 30)
    assert throughput.count_flops(lambda: layer(rows)) == 2 * 7 * 30 * 50
    assert (
        throughput.count_flops(lambda: layer(rows).sum().backward()) == 2 * 2 * 7 * 30 * 50
    )  # its weights have a gradient, its input none


def test_utilization_is_the_fraction_of_the_rate_that_is_reached():
    assert throughput.utilization(flops=100, seconds=2.0, rate=200.0) == 0.25


def test_padding_is_not_counted(monkeypatch):
    monkeypatch.setattr(throughput, "TOKENS", (2, 9))
    config = helpers.config(token_drop=0.0, batch_size=12)
    place, model = throughput.synthetic_setup(config, 12)
    order, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    batch = next(batching.iterate_epoch(place.motions, place.table, np.arange(12), 12, order, noise))
    alone = [place.motions.gather(row[None]) for row in batch.train_idx]
    motions = sum(throughput.count_flops(lambda one=one: model.encode_motions(one).sum().backward()) for one in alone)
    together = throughput.count_flops(lambda: [model.encode_motions(piece).sum().backward() for piece in batch.buckets])
    texts = throughput.count_flops(lambda: model.encode_captions(place.bank, batch.caption_idx).sum().backward())
    told = [torch.randn(count, model.size, requires_grad=True) for count in (12, len(batch.caption_idx))]
    scale = model.logit_scale()
    loss = throughput.count_flops(
        lambda: objective.contrastive_loss(*told, scale, batch.caption_idx, batch.motion_idx, place, config).backward()
    )
    assert throughput.real_flops(model, batch, place, config) == motions + texts + loss
    assert together > motions
    assert all(weight.grad is None for weight in model.parameters())


def test_an_epoch_costs_its_operations_and_the_time_of_its_fastest_pass(monkeypatch):
    monkeypatch.setattr(throughput, "TOKENS", (2, 5))
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    flops, seconds = throughput.epoch_cost(helpers.config(batch_size=4), times.__next__)
    assert seconds == 2.0
    assert flops == throughput.epoch_cost(helpers.config(batch_size=4), ticking())[0] > 0


# ---- other processes


def test_a_command_is_timed_with_its_lines():
    done = harness.run_timed(harness.code_command("print('one'); print('two')"))
    assert [line for _, line in done.lines] == ["one", "two"]
    assert 0 < done.lines[0][0] <= done.lines[1][0] <= done.seconds


def test_a_command_that_fails_is_a_fault_with_its_last_word():
    with pytest.raises(SubprocessError, match="broken for a reason"):
        harness.run_timed(harness.code_command("raise SystemExit('broken for a reason')"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_the_memory_of_a_command_and_of_its_own_children_is_seen():
    hold = "import sys, time; held = bytearray(b'x') * 60_000_000; print('said'); time.sleep(0.3)"
    below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    for command in (hold, below):
        memory, told = harness.run_watched(harness.code_command(command))
        assert 60e6 < memory.own < 200e6
        assert told == "said\n"


# ---- the page


READINGS = [Measurement("speed", "3x", "<= 6x", True), Measurement("weight", "9 MB", "< 5 MB", False), Measurement("colour", "green")]


def test_the_page_has_a_row_for_each_reading_and_the_command_that_took_it(tmp_path):
    page = tmp_path / "docs" / "benchmarks.md"
    harness.write_section(page, "throughput", "python solution/bench.py --only throughput", ["a machine"], READINGS, quick=False)
    lines = page.read_text().splitlines()
    for row in ("## throughput", "python solution/bench.py --only throughput", "- a machine", "| speed | 3x | <= 6x | yes |"):
        assert row in lines
    assert "| weight | 9 MB | < 5 MB | no |" in lines and "| colour | green |  |  |" in lines and "mean nothing" not in page.read_text()


def test_a_part_is_written_anew_and_the_others_and_what_was_written_by_hand_stay(tmp_path):
    page = tmp_path / "benchmarks.md"
    harness.write_section(page, "memory", "first command", ["a machine"], READINGS, quick=False)
    harness.write_section(page, "validation", "second command", ["a machine"], READINGS[2:], quick=False)
    by_hand = harness.STEPS_HEADING + "\nfaster by half\n\n## Why\n\nfewer steps\n"
    page.write_text(page.read_text() + by_hand)
    before = page.read_text()
    harness.write_section(page, "memory", "third command", ["another"], READINGS[:1], quick=True)
    memory, validation = page.read_text().split("## memory")[1].split("## validation")
    for new in ("third command", "- another", "mean nothing", "speed"):
        assert new in memory
    assert "a machine" not in memory and "first command" not in memory and "weight" not in memory
    assert validation == before.split("## validation")[1] and validation.endswith(by_hand)
    harness.write_section(page, "memory", "first command", ["a machine"], READINGS, quick=False)
    assert page.read_text() == before


def test_a_reading_says_whether_its_goal_is_met():
    assert Measurement("speed", "3x", "<= 6x", True).line() == "speed: 3x (goal: <= 6x; met)"
    assert Measurement("speed", "9x", "<= 6x", False).line() == "speed: 9x (goal: <= 6x; not met)"
    assert Measurement("colour", "green").line() == "colour: green"


# ---- the script


def run_bench(tmp_path, *only, data=None, code=0, **values):
    flags = helpers.flags(out=tmp_path / "page.md", work_dir=tmp_path / "work", quick=True, device="cpu", jobs=1, **values)
    assert bench.main([f"--data_dir={data or helpers.challenge()}", *flags, "--only", *only]) == code
    assert list((tmp_path / "work").iterdir()) == []  # nothing is left behind
    return (tmp_path / "page.md").read_text()


def test_the_script_measures_the_parts_it_is_asked_for(tmp_path, capsys):
    page = run_bench(tmp_path, "throughput", "preparation", "validation")
    said = capsys.readouterr().out
    for part in ("share of that rate", "preparing 24 motions, against np.load", "local score of 40 motions x 120 captions"):
        assert part in page and part in said
    assert "time_to_score" not in page and page.count("Tiny sizes") == 3
    assert page.count(f"python solution/bench.py --data_dir={helpers.challenge()} --out=") == 3
    assert page.count("--only throughput preparation validation\n") == 3


def test_every_turn_of_preparation_packs_anew_and_the_medians_count(tmp_path, monkeypatch):
    config = base.build_config(BenchConfig, {"data_dir": helpers.challenge(), "jobs": 1})
    reused, real, reading = [], dataset.load_training, iter([9.0, 1.0, 4.0, 2.0])  # the first fills the page cache
    monkeypatch.setattr(dataset, "load_training", lambda *args: reused.append(real(*args).cache_hit))
    monkeypatch.setattr(baselines, "_read_all", lambda paths: next(reading))
    monkeypatch.setattr(baselines.time, "perf_counter", iter([0, 30, 0, 8, 0, 10]).__next__)
    (found,) = baselines.measure_preparation(config, tmp_path)
    assert reused == [False] * 3 and found.value.startswith("5.0x") and found.met


def test_a_part_that_cannot_be_measured_is_said_and_the_others_are_on_the_page(tmp_path, capsys, monkeypatch):
    unanswered = tmp_path / "data"
    shutil.copytree(helpers.challenge(), unanswered)
    (unanswered / "test" / "gt.csv").unlink()

    def stopped(config, scratch):
        raise SubprocessError("train.py", "killed", "run it alone to see more")

    monkeypatch.setattr(memory_module, "measure_memory", stopped)
    page = run_bench(tmp_path, "preparation", "time_to_score", "memory", data=unanswered, code=1)
    assert "## preparation" in page and "time_to_score was" not in page and "## memory" not in page
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" was not measured: ")[0] for line in said if "was not measured" in line] == ["time_to_score", "memory"]
    assert any("gt.csv: no such file" in line for line in said)


def test_what_was_measured_stays_when_a_later_part_breaks(tmp_path, monkeypatch):
    def broken(config, scratch):
        raise RuntimeError("the machine is gone")

    monkeypatch.setattr(memory_module, "measure_memory", broken)
    with pytest.raises(RuntimeError, match="gone"):
        run_bench(tmp_path, "preparation", "memory")
    assert "preparing 24 motions" in (tmp_path / "page.md").read_text()


@pytest.fixture
def in_this_process(monkeypatch):
    """Scripts that would be run as processes of their own, which takes seconds each, are called."""
    scripts, called = {"train": train.main, "ensemble": ensemble.main}, []

    def timed(command):
        called.append(command)
        if command[1] == "-c":
            return TimedProcess(1.0, ())
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            assert scripts[Path(command[1]).stem](command[2:]) == 0
        return TimedProcess(float(len(called)), tuple((0.0, line) for line in told.getvalue().splitlines()))

    monkeypatch.setattr(harness, "run_timed", timed)
    return called


def test_the_time_to_a_score_ends_with_the_first_epoch_that_has_it(tmp_path, in_this_process):
    page = run_bench(tmp_path, "time_to_score", target=0, **MODEL, **helpers.SCRATCH)
    row = next(line for line in page.splitlines() if "seconds from a cold start to a true score of 0 " in line)
    assert "epoch 1 of 2" in row and "<= 90 s | yes" in row
    assert page.count(" at ") == 2  # the score after each epoch


def test_a_score_that_is_not_reached_is_no_goal_met(tmp_path, in_this_process):
    page = run_bench(tmp_path, "time_to_score", target=1.1, **MODEL | {"epochs": 1}, **helpers.SCRATCH)
    assert "not reached in" in page and "<= 90 s | no" in page


def test_a_rival_is_scored_at_its_own_wall_time(tmp_path, in_this_process, monkeypatch):
    truth = (helpers.challenge() / "test" / "gt.csv").read_text().splitlines()[1:]
    config = base.build_config(BenchConfig, {"data_dir": helpers.challenge(), "baseline_command": "rival.py {data} --to {out}"})
    others = {query: [k for k in range(1, 13) if k != int(right)] for query, right in (line.split(",") for line in truth)}

    def timed(command):
        assert command[:2] == ["rival.py", str(helpers.challenge())]
        header = ",".join(["query_id", *(f"candidate_{k}" for k in range(1, 11))])
        rows = [",".join(map(str, [line.split(",")[0], line.split(",")[1], *others[line.split(",")[0]][:9]])) for line in truth]
        Path(command[3]).write_text("\n".join([header, *rows]) + "\n")
        return TimedProcess(50.0, ())

    monkeypatch.setattr(harness, "run_timed", timed)
    found = time_to_score.compare_with_command(config, tmp_path, [0.3, 0.6, 0.9], [20, 40, 60])
    assert [reading.value for reading in found] == ["0.6000; the rival's 1.0000 after 50 s"]


def test_without_right_answers_there_is_no_time_to_score(tmp_path):
    config = base.build_config(BenchConfig, {"data_dir": tmp_path})
    with pytest.raises(DataError, match=r"gt\.csv: no such file"):
        time_to_score.measure_time_to_score(config, tmp_path)


def test_inference_ranks_three_numbers_of_queries_of_training_motions(tmp_path, in_this_process):
    page = run_bench(tmp_path, "inference", **MODEL | {"epochs": 1}, **helpers.SCRATCH)
    assert "test folder of 2 x 32 to submission.csv" in page
    took = "1 queries 6.0 s, 2 queries 7.0 s, 3 queries 8.0 s: 1000 ms for each more up to 2, 1000 ms from there on"
    assert f"{took}; of 24 motions, so 48 candidates of the 3 are copies" in page
    names = [Path(command[1]).stem for command in in_this_process if command[1] != "-c"]
    assert names == ["train", "ensemble", "ensemble", "ensemble"]


def test_growth_is_linear_where_each_of_many_queries_takes_no_longer_than_each_of_few():
    straight = {count: [5 + 0.1 * count] for count in (3, 30, 300)}
    bent = {count: [5 + 0.1 * count + 0.001 * count**2] for count in (3, 30, 300)}  # as a matrix of queries x candidates grows
    assert Growth.of(straight).linear and not Growth.of(bent).linear
    found = Growth.of(straight)
    assert (found.first, found.second, found.noise) == pytest.approx((0.1, 0.1, 0))


def test_growth_counts_the_fastest_of_each_number_and_allows_for_how_much_starts_differ():
    found = Growth.of({30: [8.2, 8.0, 9.9], 3: [5.3, 6.0, 5.9], 300: [40.0]})
    assert (found.first, found.second, found.noise) == pytest.approx((2.7 / 27, 32 / 270, 0.8 / 27))
    assert found.linear == (32 / 270 <= 1.3 * 0.1 + 0.8 / 27)


def test_queries_of_few_motions_take_copies_since_a_link_would_be_one_motion(tmp_path):
    training = dataset.read_training(helpers.challenge())
    first, other = (baselines.write_queries(training, 2, tmp_path / str(skip), skip) for skip in (0, 1))
    queries = read_queries(first)
    paths = [path for query in queries for path in query.paths]
    assert [len(query.paths) for query in queries] == [24, 24] and len({path.stat().st_ino for path in paths}) == 48
    for path, source in zip(paths, training.paths * 2, strict=True):
        assert path.read_bytes() == source.read_bytes()
    assert [query.captions[0] for query in queries] == [training.captions[row][0] for row in (0, 1)]
    assert [query.captions[0] for query in read_queries(other)] == [training.captions[row][0] for row in (1, 2)]


def test_only_settings_that_differ_from_their_defaults_go_to_the_training():
    config = base.build_config(BenchConfig, {"epochs": 3, "text_weights": "none", "unfreeze_text": True, "width": 256})
    assert time_to_score.as_flags(config) == ["--text_weights=none", "--unfreeze_text", "--epochs=3"]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_growth_is_what_a_motion_adds_and_a_second_copy_of_all_is_not_met(tmp_path, monkeypatch):
    packed = FRAMES * 2 * features_width(2) * 2  # of one motion, as float16
    held = {"prepare": iter([100e6, 100.16e6]), "train": iter([200e6, 200e6 + 32 * packed])}
    monkeypatch.setattr(harness, "run_watched", lambda command: (harness.PeakMemory(int(next(held[Path(command[1]).stem])), 0), ""))
    config = base.build_config(BenchConfig, {"quick": True})
    found = measure_memory(config, tmp_path)
    assert [reading.met for reading in found] == [True, False]
    assert "adds 5.0 KB" in found[0].value and f"adds {packed / 1e3:.1f} KB" in found[1].value
    assert len(list((tmp_path / "48" / "data" / "motions").iterdir())) == 48


def test_generated_motions_are_what_the_data_check_takes(tmp_path):
    write_random_motions(tmp_path / "data", 5)
    data = dataset.load_training(base.DataConfig(data_dir=tmp_path / "data", work_dir=tmp_path / "work"), jobs=1)
    assert len(data.training.ids) == 5 and not data.training.skipped
    assert data.store.features[0].nbytes * FRAMES * 5 == data.store.features.nbytes
    assert np.load(data.training.paths[0]).shape == (FRAMES, 384)
    assert data.store.config.up == "+y" and len(set(data.store.digests)) == 5


def test_the_validation_times_the_score_that_the_validator_prints(tmp_path, monkeypatch):
    """The run it writes is one that `local_score.out_of_fold_score` scores, and the other process calls that."""
    run = write_random_run(tmp_path / "run", 12, 36)
    local = local_score.out_of_fold_score([open_run(run.folder)], helpers.folds(12, 1))
    assert local.score.motions == 12 and 0 < local.score.mean < 1
    told = []
    monkeypatch.setattr(harness, "run_watched", lambda command: told.append(command) or (harness.PeakMemory(2 * 10**9, 0), "0.5"))
    found = measure_validation(base.build_config(BenchConfig, {"quick": True}), tmp_path / "scratch")
    assert "rank.out_of_fold_score([run], folds)" in told[0][2] and found[0].met is False


def test_the_script_shows_its_help_without_torch():
    code = "import sys, bench\ntry:\n    bench.main(['--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)"
    assert [line for _, line in harness.run_timed([sys.executable, "-c", code]).lines][-1] == "False"
