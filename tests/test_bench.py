"""The benchmark: counts by hand, clocks that are told the time, and the script on tiny sizes."""

import contextlib
import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bench
import ensemble
import tiny
import train
from motret import batches, benchmarks, children, config, footprint, objective, throughput, time_to_score
from motret.benchmarks import Reading
from motret.children import ChildFault, Timed
from motret.config import BenchSettings
from motret.faults import DataFault

MODEL = {"width": 16, "heads": 2, "layers": 1, "joint_layers": 0, "proj_dim": 8, "amp": "off", "batch_size": 8, "epochs": 2}


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


def test_the_rate_is_that_of_the_best_product_and_a_share_is_a_part_of_it():
    rate = throughput.matrix_rate(tiny.CPU, torch.float32, (8, 16), ticking(0.5))
    assert rate == 2 * 16**3 / 0.5
    assert throughput.share(flops=2 * 16**3, seconds=2.0, rate=rate) == 0.25


def test_padding_is_not_counted(monkeypatch):
    monkeypatch.setattr(throughput, "TOKENS", (2, 9))
    settings = tiny.settings(token_drop=0.0, batch_size=12)
    place, model = throughput.workshop(settings, 12)
    order, noise = np.random.default_rng(0), torch.Generator().manual_seed(0)
    batch = next(batches.epoch(place.motions, place.table, np.arange(12), 12, order, noise))
    alone = [place.motions.gather(row[None]) for row in batch.rows]
    motions = sum(throughput.count_flops(lambda one=one: model.encode_motions(one).sum().backward()) for one in alone)
    together = throughput.count_flops(lambda: [model.encode_motions(piece).sum().backward() for piece in batch.pieces])
    texts = throughput.count_flops(lambda: model.encode_captions(place.bank, batch.captions).sum().backward())
    told = [torch.randn(count, model.size, requires_grad=True) for count in (12, len(batch.captions))]
    scale = model.logit_scale()
    loss = throughput.count_flops(lambda: objective.contrast(*told, scale, batch.captions, batch.owner, place, settings).backward())
    assert throughput.real_flops(model, batch, place, settings) == motions + texts + loss
    assert together > motions
    assert all(weight.grad is None for weight in model.parameters())


def test_an_epoch_costs_its_operations_and_the_time_of_its_fastest_pass(monkeypatch):
    monkeypatch.setattr(throughput, "TOKENS", (2, 5))
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    flops, seconds = throughput.epoch_cost(tiny.settings(batch_size=4), times.__next__)
    assert seconds == 2.0
    assert flops == throughput.epoch_cost(tiny.settings(batch_size=4), ticking())[0] > 0


# ---- other processes


def test_a_command_is_timed_with_its_lines():
    done = children.timed(children.code("print('one'); print('two')"))
    assert [line for _, line in done.lines] == ["one", "two"]
    assert 0 < done.lines[0][0] <= done.lines[1][0] <= done.seconds


def test_a_command_that_fails_is_a_fault_with_its_last_word():
    with pytest.raises(ChildFault, match="broken for a reason"):
        children.timed(children.code("raise SystemExit('broken for a reason')"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_the_memory_of_a_command_and_of_its_own_children_is_seen():
    hold = "import sys, time; held = bytearray(b'x') * 60_000_000; print('said'); time.sleep(0.3)"
    below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    for command in (hold, below):
        memory, told = children.watched(children.code(command))
        assert 60e6 < memory.own < 200e6
        assert told == "said\n"


# ---- the page


def test_the_page_has_a_row_for_each_reading_and_keeps_what_was_written_by_hand(tmp_path):
    page = tmp_path / "docs" / "benchmarks.md"
    readings = [Reading("speed", "3x", "<= 6x", True), Reading("weight", "9 MB", "< 5 MB", False), Reading("colour", "green")]
    benchmarks.write(page, ["a machine"], readings, quick=False)
    text = page.read_text()
    for row in ("- a machine", "| speed | 3x | <= 6x | yes |", "| weight | 9 MB | < 5 MB | no |", "| colour | green |  |  |"):
        assert row in text.splitlines()
    page.write_text(text + benchmarks.STEPS + "\nfaster by half\n")
    benchmarks.write(page, ["another"], readings[:1], quick=True)
    again = page.read_text()
    assert again.endswith(benchmarks.STEPS + "\nfaster by half\n")
    assert "- another" in again and "a machine" not in again and "weight" not in again and "mean nothing" in again


def test_a_reading_says_whether_its_goal_is_met():
    assert Reading("speed", "3x", "<= 6x", True).line() == "speed: 3x (goal: <= 6x; met)"
    assert Reading("speed", "9x", "<= 6x", False).line() == "speed: 9x (goal: <= 6x; not met)"
    assert Reading("colour", "green").line() == "colour: green"


# ---- the script


def run_bench(tmp_path, *only, data=None, **values):
    flags = tiny.flags(out=tmp_path / "page.md", work_dir=tmp_path / "work", quick=True, device="cpu", jobs=1, **values)
    assert bench.main([f"--data_dir={data or tiny.challenge()}", *flags, "--only", *only]) == 0
    assert list((tmp_path / "work").iterdir()) == []  # nothing is left behind
    return (tmp_path / "page.md").read_text()


def test_the_script_measures_the_parts_it_is_asked_for(tmp_path, capsys):
    page = run_bench(tmp_path, "throughput", "preparation", "validation")
    said = capsys.readouterr().out
    for part in ("share of that rate", "preparing 24 motions, against np.load", "local score of 40 motions x 120 captions"):
        assert part in page and part in said
    assert "seconds from a cold start" not in page and "Tiny sizes" in page


@pytest.fixture
def in_this_process(monkeypatch):
    """Scripts that would be run as processes of their own, which takes seconds each, are called."""
    scripts, called = {"train": train.main, "ensemble": ensemble.main}, []

    def timed(command):
        called.append(command)
        if command[1] == "-c":
            return Timed(1.0, ())
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            assert scripts[Path(command[1]).stem](command[2:]) == 0
        return Timed(float(len(called)), tuple((0.0, line) for line in told.getvalue().splitlines()))

    monkeypatch.setattr(children, "timed", timed)
    return called


def test_the_time_to_a_score_ends_with_the_first_epoch_that_has_it(tmp_path, in_this_process):
    page = run_bench(tmp_path, "time_to_score", target=0, **MODEL, **tiny.SCRATCH)
    row = next(line for line in page.splitlines() if "seconds from a cold start to a true score of 0 " in line)
    assert "epoch 1 of 2" in row and "<= 90 s | yes" in row
    assert page.count(" at ") == 2  # the score after each epoch


def test_a_score_that_is_not_reached_is_no_goal_met(tmp_path, in_this_process):
    page = run_bench(tmp_path, "time_to_score", target=1.1, **MODEL | {"epochs": 1}, **tiny.SCRATCH)
    assert "not reached in" in page and "<= 90 s | no" in page


def test_a_rival_is_scored_at_its_own_wall_time(tmp_path, in_this_process, monkeypatch):
    truth = (tiny.challenge() / "test" / "gt.csv").read_text().splitlines()[1:]
    settings = config.build(BenchSettings, {"data_dir": tiny.challenge(), "rival": "rival.py {data} --to {out}"})
    others = {query: [k for k in range(1, 13) if k != int(right)] for query, right in (line.split(",") for line in truth)}

    def timed(command):
        assert command[:2] == ["rival.py", str(tiny.challenge())]
        header = ",".join(["query_id", *(f"candidate_{k}" for k in range(1, 11))])
        rows = [",".join(map(str, [line.split(",")[0], line.split(",")[1], *others[line.split(",")[0]][:9]])) for line in truth]
        Path(command[3]).write_text("\n".join([header, *rows]) + "\n")
        return Timed(50.0, ())

    monkeypatch.setattr(children, "timed", timed)
    found = time_to_score.against(settings, tmp_path, [0.3, 0.6, 0.9], [20, 40, 60])
    assert [reading.value for reading in found] == ["0.6000; the rival's 1.0000 after 50 s"]


def test_without_right_answers_there_is_no_time_to_score(tmp_path):
    settings = config.build(BenchSettings, {"data_dir": tmp_path})
    with pytest.raises(DataFault, match=r"gt\.csv: no such file"):
        time_to_score.measure(settings, tmp_path)


def test_inference_ranks_links_to_training_motions(tmp_path, in_this_process):
    page = run_bench(tmp_path, "inference", **MODEL | {"epochs": 1}, **tiny.SCRATCH)
    assert "test folder of 1 x 32 to submission.csv" in page and "linear at most" in page
    names = [Path(command[1]).stem for command in in_this_process if command[1] != "-c"]
    assert names == ["train", "ensemble"]


def test_only_settings_that_differ_from_their_defaults_go_to_the_training():
    settings = config.build(BenchSettings, {"epochs": 3, "text_weights": "none", "unfreeze_text": True, "width": 256})
    assert time_to_score.flags(settings) == ["--text_weights=none", "--unfreeze_text", "--epochs=3"]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_growth_is_what_a_motion_adds(tmp_path, monkeypatch):
    held = {"prepare": iter([100e6, 103.2e6]), "train": iter([200e6, 300e6])}
    monkeypatch.setattr(children, "watched", lambda command: (children.Memory(int(next(held[Path(command[1]).stem])), 0), ""))
    settings = config.build(BenchSettings, {"quick": True})
    found = footprint.memory(settings, tmp_path)
    assert [reading.met for reading in found] == [True, False]
    assert "adds 100.0 KB" in found[0].value and "adds 3125.0 KB" in found[1].value
    assert len(list((tmp_path / "48" / "data" / "motions").iterdir())) == 48


def test_generated_motions_are_what_the_data_check_takes(tmp_path):
    footprint.write_motions(tmp_path / "data", 5)
    from motret import dataset

    data = dataset.load_training(config.DataSettings(data_dir=tmp_path / "data", work_dir=tmp_path / "work"), jobs=1)
    assert len(data.training.ids) == 5 and not data.training.skipped
    assert data.store.settings.up == "+y" and len(set(data.store.digests)) == 5


def test_the_script_shows_its_help_without_torch():
    code = "import sys, bench\ntry:\n    bench.main(['--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)"
    assert [line for _, line in children.timed([sys.executable, "-c", code]).lines][-1] == "False"
