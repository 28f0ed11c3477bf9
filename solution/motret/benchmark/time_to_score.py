"""Time to score: from nothing but raw files and text weights to a model of a given true score, by phase."""

import shlex
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from motret.benchmark import harness
from motret.benchmark.harness import Measurement
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.data import dataset
from motret.data.batching import MotionTensors
from motret.errors import DataError
from motret.evaluation import metrics, submission_score
from motret.formats import submission, text_files
from motret.formats.queries import read_queries
from motret.models import embed, text_tower
from motret.runs.checkpoints import build_model, load_weights
from motret.runs.run import Run, open_run
from motret.utils.device import autocast, choose_device, uses_bfloat16

GOAL_SECONDS = 90
STARTUP = "from motret import training"


def measure_time_to_score(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Trains on all motions in a process of its own, with every cache empty; each epoch's model is scored on the test queries later."""
    test_dir = config.data.data_dir / "test"
    if not (test_dir / "gt.csv").is_file():
        raise DataError(test_dir / "gt.csv", "no such file, so no model can be scored", "leave time_to_score out of --only")
    harness.run_timed(harness.code_command(STARTUP))  # libraries come from the page cache in all that is timed
    startup = harness.run_timed(harness.code_command(STARTUP)).seconds
    began = time.time()
    chosen = [*data_flags(config, scratch), *as_flags(config), "--fold=full", "--save_every=1"]
    done = harness.run_timed(harness.script_command("train", "holistic", *chosen))
    packed = next(second for second, line in done.lines if ": features packed in" in line)
    run = open_run(scratch / "runs" / "timed")
    ready = (run.folder / "args.json").stat().st_mtime - began
    saved = sorted(run.part(None).glob("ckpt_epoch*.pt"), key=lambda file: file.stat().st_mtime_ns)
    ends = [file.stat().st_mtime - began for file in saved]
    scores = true_scores(config, run, saved)
    reached = next((number for number, score in enumerate(scores) if score >= config.target), None)
    total = ends[-1 if reached is None else reached]
    phases = {"start-up": startup, "preparing": packed - startup, "folds and captions": ready - packed, "training": total - ready}
    told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    what = f"seconds from a cold start to a true score of {config.target:g}"
    value = f"not reached in {total:.0f} s"
    if reached is not None:
        value = f"{total:.0f} s, epoch {reached + 1} of {len(scores)}: {scores[reached]:.4f}"
    course = ", ".join(f"{score:.3f} at {end:.0f} s" for score, end in zip(scores, ends, strict=True))
    readings = [
        Measurement(what, f"{value} ({told})", f"<= {GOAL_SECONDS} s", reached is not None and total <= GOAL_SECONDS),
        Measurement("true score after each epoch", course),
    ]
    return readings + (compare_with_command(config, scratch, scores, ends) if config.baseline_command else [])


def data_flags(config: BenchConfig, scratch: Path) -> list[str]:
    """Flags of a training on the data folder, whose caches and runs go to the scratch folder."""
    made = {"work_dir": "work", "folds_dir": "folds", "out_dir": "runs"}
    machine = {name: getattr(config.machine, name) for name in ("device", "seed", "jobs")}
    where = {"data_dir": config.data.data_dir, "run_name": "timed"} | {name: scratch / folder for name, folder in made.items()}
    return [f"--{name}={value}" for name, value in (where | machine).items()]


def as_flags(config: BenchConfig) -> list[str]:
    """The training settings that differ from their defaults in this benchmark, as flags of train.py."""
    chosen = (config.motion, config.text, config.augment, config.fit)
    plain = {name: value for group in chosen for name, value in base.flatten(type(group)()).items()}
    given = {name: value for group in chosen for name, value in base.flatten(group).items() if value != plain[name]}
    return [f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name}={value}" for name, value in given.items()]


def true_scores(config: BenchConfig, run: Run, checkpoints: list[Path]) -> list[float]:
    """The competition's score on the test queries of each of a run's checkpoints."""
    test_dir = config.data.data_dir / "test"
    work_dir = run.folder.parent.parent / "work"
    test = dataset.load_test(test_dir, run.features, replace(config.data, work_dir=work_dir), config.machine.jobs)
    truth = submission.read_ground_truth(test_dir / "gt.csv")
    device = choose_device(config.machine.device)
    tower = text_tower.make_text_tower(run.config.text)
    captions = [caption for query in test.queries for caption in query.captions]
    bank = embed.make_caption_bank(captions, tower, not text_tower.is_trained(run.config.text), work_dir / "text", device).to(device)
    motions, precision = MotionTensors(test.store, run.config.motion, device), uses_bfloat16(run.config.fit.amp, device)
    model = build_model(run.config, run, test.store.columns, tower, 0).to(device)
    ends = np.cumsum([len(query.captions) for query in test.queries])[:-1]
    scores = []
    for file in checkpoints:
        load_weights(file, model, device)
        motion = embed.embed_motions(model, motions, np.arange(len(test.store.ids)), autocast(device, precision))
        caption = embed.embed_captions(model, bank, bank.indices(captions).to(device), autocast(device, precision))
        by_query = zip(np.split(caption, ends), test.candidate_idx, strict=True)
        ranked = submission.rank_candidates(test.queries, [(own @ motion[rows].T).mean(axis=0) for own, rows in by_query])
        answers = {text_files.query_key(name): tuple(order) for name, order in ranked.items()}
        scores.append(float(metrics.submission_scores(answers, truth).mean()))
    return scores


def compare_with_command(config: BenchConfig, scratch: Path, scores: list[float], ends: list[float]) -> list[Measurement]:
    """The true score of another pipeline, and the best that ours had reached when that one was done."""
    test_dir, out = config.data.data_dir / "test", scratch / "rival.csv"
    command = [
        word.replace("{data}", str(config.data.data_dir)).replace("{out}", str(out)) for word in shlex.split(config.baseline_command)
    ]
    seconds = harness.run_timed(command).seconds
    answers = submission.read_submission(out, read_queries(test_dir))
    theirs = submission_score.score_submission(answers, submission.read_ground_truth(test_dir / "gt.csv"))
    ours = max((score for score, end in zip(scores, ends, strict=True) if end <= seconds), default=None)
    told = "none yet" if ours is None else f"{ours:.4f}"
    return [Measurement("true score when the rival is done", f"{told}; the rival's {theirs.mean:.4f} after {seconds:.0f} s")]
