"""Time to score: from nothing but raw files and text weights to a model of a given true score, by phase."""

import shlex
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from motret import builder, challenge, children, config, dataset, embedding, metrics, rank, runs, submission, text, workplace
from motret.batches import Motions
from motret.benchmarks import Reading
from motret.config import BenchSettings
from motret.faults import DataFault
from motret.queries import read_queries
from motret.runs import Run

GOAL_SECONDS = 90
STARTUP = "from motret import training"


def measure(settings: BenchSettings, scratch: Path) -> list[Reading]:
    """Trains on all motions in a process of its own, with every cache empty; each epoch's model is scored on the test queries later."""
    test_dir = settings.data.data_dir / "test"
    if not (test_dir / "gt.csv").is_file():
        raise DataFault(test_dir / "gt.csv", "no such file, so no model can be scored", "leave time_to_score out of --only")
    children.timed(children.code(STARTUP))  # libraries come from the page cache in all that is timed
    startup = children.timed(children.code(STARTUP)).seconds
    began = time.time()
    chosen = [*places(settings, scratch), *flags(settings), "--fold=full", "--save_every=1"]
    done = children.timed(children.script("train", "holistic", *chosen))
    packed = next(second for second, line in done.lines if ": features packed in" in line)
    run = runs.open_run(scratch / "runs" / "timed")
    ready = (run.folder / "args.json").stat().st_mtime - began
    saved = sorted(run.part(None).glob("ckpt_epoch*.pt"), key=lambda file: file.stat().st_mtime_ns)
    ends = [file.stat().st_mtime - began for file in saved]
    scores = true_scores(settings, run, saved)
    reached = next((number for number, score in enumerate(scores) if score >= settings.target), None)
    total = ends[-1 if reached is None else reached]
    phases = {"start-up": startup, "preparing": packed - startup, "folds and captions": ready - packed, "training": total - ready}
    told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    what = f"seconds from a cold start to a true score of {settings.target:g}"
    value = f"not reached in {total:.0f} s"
    if reached is not None:
        value = f"{total:.0f} s, epoch {reached + 1} of {len(scores)}: {scores[reached]:.4f}"
    course = ", ".join(f"{score:.3f} at {end:.0f} s" for score, end in zip(scores, ends, strict=True))
    readings = [
        Reading(what, f"{value} ({told})", f"<= {GOAL_SECONDS} s", reached is not None and total <= GOAL_SECONDS),
        Reading("true score after each epoch", course),
    ]
    return readings + (against(settings, scratch, scores, ends) if settings.rival else [])


def places(settings: BenchSettings, scratch: Path) -> list[str]:
    """Flags of a training on the data folder, whose caches and runs go to the scratch folder."""
    made = {"work_dir": "work", "folds_dir": "folds", "out_dir": "runs"}
    machine = {name: getattr(settings.machine, name) for name in ("device", "seed", "jobs")}
    where = {"data_dir": settings.data.data_dir, "run_name": "timed"} | {name: scratch / folder for name, folder in made.items()}
    return [f"--{name}={value}" for name, value in (where | machine).items()]


def flags(settings: BenchSettings) -> list[str]:
    """The training settings that differ from their defaults in this benchmark, as flags of train.py."""
    chosen = (settings.motion, settings.text, settings.augment, settings.fit)
    plain = {name: value for group in chosen for name, value in config.flat(type(group)()).items()}
    given = {name: value for group in chosen for name, value in config.flat(group).items() if value != plain[name]}
    return [f"--{'' if value else 'no_'}{name}" if isinstance(value, bool) else f"--{name}={value}" for name, value in given.items()]


def true_scores(settings: BenchSettings, run: Run, checkpoints: list[Path]) -> list[float]:
    """The competition's score on the test queries of each of a run's checkpoints."""
    test_dir = settings.data.data_dir / "test"
    work_dir = run.folder.parent.parent / "work"
    test = dataset.load_test(test_dir, run.features, replace(settings.data, work_dir=work_dir), settings.machine.jobs)
    truth = submission.read_ground_truth(test_dir / "gt.csv")
    device = workplace.choose_device(settings.machine.device)
    tower = text.make_tower(run.settings.text)
    captions = [caption for query in test.queries for caption in query.captions]
    bank = text.make_bank(captions, tower, not text.trains(run.settings.text), work_dir / "text", device).to(device)
    motions, precision = Motions(test.store, run.settings.motion, device), workplace.uses_bfloat16(run.settings, device)
    model = builder.build_model(run.settings, run, test.store.columns, tower, 0).to(device)
    ends = np.cumsum([len(query.captions) for query in test.queries])[:-1]
    scores = []
    for file in checkpoints:
        runs.load_weights(file, model, device)
        motion = embedding.embed_motions(model, motions, np.arange(len(test.store.ids)), workplace.autocast(device, precision))
        caption = embedding.embed_captions(model, bank, bank.rows(captions).to(device), workplace.autocast(device, precision))
        by_query = zip(np.split(caption, ends), test.rows, strict=True)
        ranked = rank.ranking(test.queries, [(own @ motion[rows].T).mean(axis=0) for own, rows in by_query])
        answers = {challenge.query_key(name): tuple(order) for name, order in ranked.items()}
        scores.append(float(metrics.submission_scores(answers, truth).mean()))
    return scores


def against(settings: BenchSettings, scratch: Path, scores: list[float], ends: list[float]) -> list[Reading]:
    """The true score of another pipeline, and the best that ours had reached when that one was done."""
    test_dir, out = settings.data.data_dir / "test", scratch / "rival.csv"
    command = [word.replace("{data}", str(settings.data.data_dir)).replace("{out}", str(out)) for word in shlex.split(settings.rival)]
    seconds = children.timed(command).seconds
    answers = submission.read_submission(out, read_queries(test_dir))
    theirs = submission.score(answers, submission.read_ground_truth(test_dir / "gt.csv"))
    ours = max((score for score, end in zip(scores, ends, strict=True) if end <= seconds), default=None)
    told = "none yet" if ours is None else f"{ours:.4f}"
    return [Reading("true score when the rival is done", f"{told}; the rival's {theirs.mean:.4f} after {seconds:.0f} s")]
