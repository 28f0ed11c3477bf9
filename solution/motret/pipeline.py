"""The whole way from data to submission as a list of script calls: planned, forecast, run one by one."""

import contextlib
import difflib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret import challenge, cli, config, dataset, features, files, part_texts, split_joints, submission_log, tuned
from motret.config import PRESETS, Preset
from motret.faults import DataFault, SettingFault
from motret.skeleton import POSITION_COLUMNS, persons_of

SCRIPTS = {
    "prepare": config.PrepareSettings,
    "make_folds": config.FoldSettings,
    "tune": config.TuneSettings,
    "train": config.TrainSettings,
    "ensemble": config.EnsembleSettings,
    "validate": config.SubmissionSettings,
    "report": config.ReportSettings,
}
"""The scripts of the way, in order, and the settings whose names are their flags."""
TO_SCORES = SCRIPTS | {"validate": config.OofSettings}
"""The same where there are no queries: the way ends with local scores."""
NOT_TUNED = {"max_minutes", "jobs", "fold", "tuned", *config.names_of(config.SnapshotSettings)}
"""Flags of train.py that say nothing to a trial, or that tune.py means otherwise."""
OWN = {"data_dir", "preset", "run_name", "resume", "runs", "run", "dry_run"}
"""Flags that the plan sets itself."""
SCORES = "score the runs"
"""Title of the step that stands for the submission where there are no queries."""
DATA = "<data>"
"""Stands in a run's name for the data and folds it belongs to, until they are known."""
EFFICIENCY = 0.15
"""Share of the machine's matrix-product rate that training reaches, roughly; for the forecast alone."""


@dataclass(frozen=True)
class Step:
    """One script call."""

    title: str
    script: str
    args: tuple[str, ...]

    def command(self) -> str:
        """What a person would type."""
        return " ".join(["python", f"solution/{self.script}.py", *self.args])


@dataclass(frozen=True)
class Plan:
    """The steps, what they work on, and what there is to say before they start."""

    data_dir: Path
    preset: str
    notes: tuple[str, ...]
    steps: tuple[Step, ...]
    folds_dir: Path
    submissions_dir: Path

    def known(self, step: Step) -> Step:
        """The step with the data it runs on, and the part texts and tuned values that are taken, in its run names, where folds tell."""
        if not any(DATA in arg for arg in step.args):
            return step
        try:
            about = json.loads((self.folds_dir / "folds.json").read_text(encoding="utf-8"))
            tag = files.digest(about["data"], about["hash"])[:6]
        except (OSError, ValueError, KeyError, TypeError):
            return step
        told = {DATA: tag}
        for call in (other.args for other in self.steps if other.script == "train"):
            settings, _ = cli.parse_train(call, None)
            made_of = part_texts.digest(settings), tuned.find(settings).values
            told[_tuned(settings.variant)] = "".join(f"-{files.digest(one)[:4]}" for one in made_of if one)
        args = list(step.args)
        for word, meaning in told.items():
            args = [arg.replace(word, meaning) for arg in args]
        return Step(step.title, step.script, tuple(args))


def route(groups: Sequence[tuple[str, list[str]]], scripts: Mapping[str, type] = SCRIPTS) -> dict[str, list[str]]:
    """Hands each flag on to the scripts that know it. SettingFault for a flag that none knows."""
    takes = {script: set(config.names_of(kind)) for script, kind in scripts.items()}
    takes["tune"] = (takes["tune"] | takes["train"]) - NOT_TUNED
    routed: dict[str, list[str]] = {script: [] for script in scripts}
    for name, words in groups:
        plain = name.removeprefix("no_")
        takers = [script for script, names in takes.items() if name in names or plain in names]
        if not takers:
            close = difflib.get_close_matches(name, sorted(set().union(*takes.values())), n=3)
            hint = f"did you mean {', '.join('--' + word for word in close)}?" if close else "see `python solution/train.py --help`"
            raise SettingFault(f"--{name}", "no script knows this flag", hint)
        for script in takers:
            if name != "fold" or script == "train" or _value(words).isdecimal():  # all and full are train.py's words
                routed[script] += words
    return routed


def make_plan(args: Sequence[str]) -> Plan:
    """What `run_all.sh` with these flags does, worked out without doing it."""
    groups = cli.flag_groups(args, "run_all.sh")
    asked = {name: words for name, words in groups if name in OWN}
    if taken := sorted(asked.keys() - {"data_dir", "preset"}):
        raise SettingFault(f"--{taken[0]}", "run_all.sh sets it itself", "leave it out, or call the scripts one by one")
    handed_on = [(name, words) for name, words in groups if name not in OWN]
    routed = route(handed_on)
    if _given(routed["train"], "fold") == "full":
        raise SettingFault(
            "--fold", "full holds nothing out, so nothing tells the local score", "run without it, then train.py --fold full"
        )
    notes: list[str] = []
    steps: list[Step] = []
    default = config.names_of(config.DataSettings)["data_dir"]
    if "data_dir" in asked:
        data_dir = Path(_value(asked["data_dir"]))
        if not data_dir.is_dir():
            raise DataFault(data_dir, "no such folder", challenge.NO_DATA)
    elif default.is_dir():
        data_dir = default
    else:
        data_dir = config.names_of(config.SampleSettings)["out"]
        notes.append(f"no {default}/ here: running on a generated challenge in {data_dir} (put the competition's data into {default}/)")
        steps.append(Step("generate a challenge", "sample", ("--out", str(data_dir))))
    generated = bool(steps)
    preset = _value(asked["preset"]) if "preset" in asked else ("fast" if generated else "full")
    if preset not in PRESETS:
        raise SettingFault("--preset", f"no preset is called {preset!r}", f"choose from {', '.join(PRESETS)}")
    data = ("--data_dir", str(data_dir))
    steps += [
        Step("check and pack the data", "prepare", (*data, *routed["prepare"])),
        Step("split into folds", "make_folds", (*data, *_folds(PRESETS[preset], routed["make_folds"]), *routed["make_folds"])),
    ]
    tuning = _given(routed["train"], "tuned") or "auto"
    if tuning == "auto":
        steps.append(Step("tune", "tune", (*data, "--preset", preset, *routed["tune"])))
    names = []
    for variant in PRESETS[preset].variants:
        call = [variant, *data, "--preset", preset, *routed["train"]]
        name = f"{variant}-{preset}-{_hash([*call, '--tuned', 'none'])}-{DATA}{_tuned(variant)}"
        names.append(name)
        steps.append(Step(f"train {variant}", "train", (*call, "--tuned", tuning, "--run_name", name, "--resume", "auto")))
    submissions = Path(_given(routed["ensemble"], "submissions_dir") or config.names_of(config.EnsembleSettings)["submissions_dir"])
    if split_joints.is_here(data_dir) and not Path(_given(routed["ensemble"], "test_dir") or data_dir / "test").is_dir():
        notes.append(f"no test folder in {data_dir}: the way ends with the local scores")
        steps.append(Step(SCORES, "validate", ("oof", *data, "--runs", *names, *route(handed_on, TO_SCORES)["validate"])))
    else:
        file = _given(routed["ensemble"], "out") or str(submissions / "submission.csv")
        steps.append(Step("rank the candidates", "ensemble", (*data, "--runs", *names, *routed["ensemble"])))
        steps.append(Step("check the submission", "validate", ("submission", file, *data, *routed["validate"])))
    steps.append(Step("draw what was learned", "report", (*data, "--run", *names, *routed["report"])))
    folds_dir = Path(_given(routed["train"], "folds_dir") or config.names_of(config.DataSettings)["folds_dir"])
    return Plan(data_dir, preset, tuple(notes), tuple(steps), folds_dir, submissions)


def forecast(plan: Plan) -> str:
    """Rough time and disk of the plan, from the data's headers and this machine's speed."""
    training = dataset.read_training(plan.data_dir)
    headers = _headers(training.paths)
    frames = float(np.mean([shape[0] for shape in headers])) * len(training.paths)
    persons = persons_of(headers[0][1])
    packed = frames * persons * features.width(persons, headers[0][1] > POSITION_COLUMNS) * 2
    seconds = frames / 60_000  # packing
    checkpoints = 0.0
    rate = _matrix_rate()
    for step in plan.steps:
        if step.script == "tune":
            seconds += 60 * (cli.parse_tune(step.args, None)[0].max_minutes or 0)
        if step.script != "train":
            continue
        settings, _ = cli.parse_train(step.args, None)
        motion, fit = settings.motion, settings.fit
        folds = settings.folds if settings.fold == "all" and not settings.prefer_txt_split else 1
        weights = 12 * motion.width**2 * motion.layers
        tokens = frames * persons / motion.patch * (1 - motion.token_drop)
        limit = fit.max_minutes * 60 if fit.max_minutes else float("inf")
        learnt = 1 - 1 / settings.folds
        seconds += folds * min(limit, fit.epochs * learnt * 6 * weights * tokens / (EFFICIENCY * rate) + fit.epochs * 0.5)
        checkpoints += folds * weights * 4 * 5
    return f"forecast: about {_minutes(seconds)} on this machine, {(packed + checkpoints) / 1e9:.1f} GB of disk"


def _headers(paths: Sequence[Path], most: int = 50) -> list[tuple[int, int]]:
    """Frames and columns of some of the motions; broken ones, which are left out of the training, do not count."""
    shapes = []
    for row in np.unique(np.linspace(0, len(paths) - 1, most).astype(int)):
        with contextlib.suppress(DataFault):
            shapes.append(challenge.motion_shape(paths[row]))
    if not shapes:
        raise DataFault(paths[0].parent, "no readable motion among those looked at", "see `python solution/prepare.py`")
    return shapes


def run(plan: Plan) -> int:
    """Runs the steps, each as its own process, until one fails; returns its exit code."""
    began = time.perf_counter()
    for number, planned in enumerate(plan.steps, start=1):
        step = plan.known(planned)
        print(f"\n[{number}/{len(plan.steps)}] {step.title}: {step.command()}", flush=True)
        start = time.perf_counter()
        code = subprocess.run([sys.executable, str(config.ROOT / "solution" / f"{step.script}.py"), *step.args], check=False).returncode
        if code:
            told = f"\nstopped at step {number} ({step.title}), exit code {code}; once it is mended the same command goes on from here"
            print(told, file=sys.stderr)
            return code
        print(f"[{number}/{len(plan.steps)}] done in {_minutes(time.perf_counter() - start)}", flush=True)
        if step.script == "make_folds":
            print(forecast(plan), flush=True)
    print(f"\nall done in {_minutes(time.perf_counter() - began)}")
    print(_result(plan))
    return 0


def _result(plan: Plan) -> str:
    """The submission, its local score, and its true one where it is known, from the last row of the log; a word where there is none."""
    (checked,) = (step for step in plan.steps if step.script == "validate")
    if checked.title == SCORES:
        return "no queries to rank: the local scores are those above"
    about = json.loads(submission_log.latest(plan.submissions_dir).with_suffix(".json").read_text(encoding="utf-8"))
    local = (
        "{mean:.4f} +- {error:.4f}".format(**about["local_score"]) if about["local_score"] else "none (a member has no out-of-fold part)"
    )
    lines = [f"submission  {checked.args[1]}", f"local score {local}"]
    if about["true_score"]:
        lines.append("true score  {mean:.4f} +- {error:.4f}".format(**about["true_score"]))
    return "\n".join(lines)


def _folds(preset: Preset, given: Sequence[str]) -> tuple[str, ...]:
    return () if {"folds", "prefer_txt_split"} & {name for name, _ in cli.flag_groups(given)} else ("--folds", str(preset.values["folds"]))


def _given(words: Sequence[str], flag: str) -> str | None:
    for name, group in cli.flag_groups(words):
        if name == flag:
            return _value(group)
    return None


def _tuned(variant: str) -> str:
    """Stands in a run's name for the part texts and tuned values it takes, until they are known."""
    return f"<tuned {variant}>"


def _value(words: Sequence[str]) -> str:
    if "=" in words[0]:
        return words[0].split("=", 1)[1]
    if len(words) < 2:
        raise SettingFault(words[0], "no value", "give one after it")
    return words[1]


def _hash(call: Sequence[str]) -> str:
    """Names a run after what makes it, so that the same command finds it again and another one does not."""
    from motret import runs

    settings, _ = cli.parse_train(call, None)
    return runs.settings_hash(settings)[:6]


def _matrix_rate() -> float:
    """Matrix-product operations a second, as training computes them; measured for a fifth of a second."""
    import torch

    from motret import workplace

    device = workplace.choose_device("auto")
    kind = torch.bfloat16 if workplace.computes_in_bfloat16(device) else torch.float32
    left = torch.randn(1024, 1024, device=device).to(kind)
    float((left @ left).float().sum())
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < 0.2:
        float((left @ left)[0, 0])
        done += 1
    return done * 2 * 1024**3 / (time.perf_counter() - start)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
