"""Time to score: from raw files and text weights to a model of a given true score, by phase."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from motret.benchmark import subprocesses
from motret.benchmark.harness import Measurement
from motret.config import base
from motret.config.scripts import BenchConfig
from motret.data import dataset
from motret.data.batching import MotionTensors
from motret.errors import DataError
from motret.evaluation import metrics, submission_score
from motret.formats import submission, text_files
from motret.formats.queries import read_queries
from motret.models import embed, registry, text_tower
from motret.runs.checkpoints import build_model, load_weights
from motret.runs.run import Run, open_run
from motret.utils.device import autocast, choose_device, inference_dtype

GOAL_SECONDS = 90
RUN_NAME = "timed"
IMPORTS = "from motret.training import train"


def measure_time_to_score(config: BenchConfig, scratch: Path) -> list[Measurement]:
    """Trains on all motions in a process of its own with empty caches, and times the phases.

    The model of each epoch is scored on the test queries afterwards. DataError without gt.csv.
    """
    truth = config.data.data_dir / "test" / "gt.csv"
    if not truth.is_file():
        problem = "no such file, so no model can be scored"
        raise DataError(truth, problem, "leave time_to_score out of --only")
    imports = subprocesses.code_command(IMPORTS)
    subprocesses.run_timed(imports)  # from here on the libraries come from the page cache
    startup = subprocesses.run_timed(imports).seconds
    flags = [*data_flags(config, scratch), *changed_flags(config), "--fold=full", "--save_every=1"]
    began = time.time()
    subprocesses.run_timed(subprocesses.script_command("train", "holistic", *flags))
    run = open_run(scratch / "runs" / RUN_NAME)

    def seconds_at(path: Path) -> float:
        """When a file was written, in seconds from the start of the training."""
        return path.stat().st_mtime - began

    packed = max(map(seconds_at, (scratch / "work").glob("*/store.json")))
    ready = seconds_at(run.folder / "args.json")
    checkpoints = sorted(run.fold_dir(None).glob("ckpt_epoch*.pt"), key=seconds_at)
    epoch_ends = [seconds_at(path) for path in checkpoints]
    scores = true_scores(config, run, checkpoints)
    reached = next((index for index, score in enumerate(scores) if score >= config.target), None)
    total = epoch_ends[-1 if reached is None else reached]
    phases = {
        "start-up": startup,
        "preparing": packed - startup,
        "folds and captions": ready - packed,
        "training": total - ready,
    }
    durations = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    value = f"not reached in {total:.0f} s"
    if reached is not None:
        epoch = f"epoch {reached + 1} of {len(scores)}"
        value = f"{total:.0f} s, {epoch}: {scores[reached]:.4f}"
    by_epoch = zip(scores, epoch_ends, strict=True)
    measurements = [
        Measurement(
            f"seconds from a cold start to a true score of {config.target:g}",
            f"{value} ({durations})",
            f"<= {GOAL_SECONDS} s",
            reached is not None and total <= GOAL_SECONDS,
        ),
        Measurement(
            "true score after each epoch",
            ", ".join(f"{score:.3f} at {end:.0f} s" for score, end in by_epoch),
        ),
    ]
    if config.baseline_command:
        measurements.append(compare_with_baseline(config, scratch, scores, epoch_ends))
    return measurements


def data_flags(config: BenchConfig, scratch: Path) -> list[str]:
    """Flags of a training on the data folder, with caches and runs in the scratch folder."""
    values = {
        "data_dir": config.data.data_dir,
        "run_name": RUN_NAME,
        "work_dir": scratch / "work",
        "folds_dir": scratch / "folds",
        "out_dir": scratch / "runs",
        "device": config.machine.device,
        "seed": config.machine.seed,
        "jobs": config.machine.jobs,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def changed_flags(config: BenchConfig) -> list[str]:
    """The training settings that differ from their defaults in this benchmark, as flags."""
    groups = (
        config.motion,
        config.text,
        config.augment,
        config.fit,
        config.optim,
        config.checkpoint,
    )
    flags = []
    for group in groups:
        defaults = base.flatten(type(group)())
        for name, value in base.flatten(group).items():
            if value == defaults[name]:
                continue
            if isinstance(value, bool):
                flags.append(f"--{'' if value else 'no_'}{name}")
            else:
                flags.append(f"--{name}={value}")
    return flags


def true_scores(config: BenchConfig, run: Run, checkpoints: Sequence[Path]) -> list[float]:
    """The competition's score on the test queries of each of a run's checkpoints."""
    test_dir = config.data.data_dir / "test"
    work_dir = run.folder.parent.parent / "work"
    data_config = replace(config.data, work_dir=work_dir)
    test = dataset.load_test(test_dir, run.features, data_config, config.machine.jobs)
    truth = submission.read_ground_truth(test_dir / "gt.csv")
    device = choose_device(config.machine.device)
    dtype = inference_dtype(run.config.fit.amp, device)
    tower = registry.make_text_tower(run.config.text)
    frozen = not text_tower.is_trained(run.config.text)
    captions = [caption for query in test.queries for caption in query.captions]
    bank = embed.make_caption_bank(captions, tower, frozen, work_dir / "text", device).to(device)
    motions = MotionTensors(test.store, run.config.motion, device)
    motion_idx, caption_idx = np.arange(len(test.store.ids)), bank.indices(captions)
    model = build_model(run.config, run, test.store.columns, tower, 0).to(device)
    query_ends = np.cumsum([len(query.captions) for query in test.queries])[:-1]
    scores = []
    for path in checkpoints:
        load_weights(path, model, device)
        motion = embed.embed_motions(model, motions, motion_idx, autocast(device, dtype))
        text = embed.embed_captions(model, bank, caption_idx, autocast(device, dtype))
        by_query = zip(np.split(text, query_ends), test.candidate_idx, strict=True)
        similarities = [
            (query_text @ motion[candidates].T).mean(axis=0) for query_text, candidates in by_query
        ]
        ranking = submission.rank_candidates(test.queries, similarities)
        answers = {text_files.query_key(name): tuple(order) for name, order in ranking.items()}
        scores.append(float(metrics.submission_scores(answers, truth).mean()))
    return scores


def compare_with_baseline(
    config: BenchConfig, scratch: Path, scores: Sequence[float], epoch_ends: Sequence[float]
) -> Measurement:
    """The true score of another pipeline, and our best score by the time it has ended.

    `config.baseline_command` trains and ranks; {data} and {out} in it stand for the data folder and
    the CSV file to write. scores, epoch_ends: our true score after each epoch, and when it ended.
    """
    assert config.baseline_command is not None
    test_dir, out = config.data.data_dir / "test", scratch / "baseline.csv"
    paths = {"{data}": str(config.data.data_dir), "{out}": str(out)}
    command = shlex.split(config.baseline_command)
    for placeholder, path in paths.items():
        command = [word.replace(placeholder, path) for word in command]
    seconds = subprocesses.run_timed(command).seconds
    answers = submission.read_submission(out, read_queries(test_dir))
    truth = submission.read_ground_truth(test_dir / "gt.csv")
    baseline = submission_score.score_submission(answers, truth)
    by_epoch = zip(scores, epoch_ends, strict=True)
    best = max((score for score, end in by_epoch if end <= seconds), default=None)
    ours = "none yet" if best is None else f"{best:.4f}"
    return Measurement(
        "true score when the baseline ends",
        f"{ours}; the baseline's {baseline.mean:.4f} after {seconds:.0f} s",
    )
