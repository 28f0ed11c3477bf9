"""The whole way from data to submission as a list of script calls: planned, checked, run one by one."""

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from motret.config import base, cli, presets, training
from motret.config.presets import PRESETS, Preset
from motret.config.scripts import EnsembleConfig, FoldConfig, OofConfig, PrepareConfig, ReportConfig, SubmissionConfig, TuneConfig
from motret.data import folds
from motret.errors import ConfigError, DataError
from motret.formats import challenge
from motret.pipeline import outcome, preflight
from motret.pipeline.steps import Step, effective_processes, run_steps
from motret.utils import files

SCRIPTS = {
    "prepare": PrepareConfig,
    "make_folds": FoldConfig,
    "tune": TuneConfig,
    "train": training.TrainConfig,
    "ensemble": EnsembleConfig,
    "validate": SubmissionConfig,
    "report": ReportConfig,
}
"""The scripts of the way, in order, and the settings whose names are their flags."""
WITHOUT_TEST = SCRIPTS | {"validate": OofConfig}
"""The same where there is no test folder: the way ends with local scores."""
NOT_TUNED = {"max_minutes", "jobs", "fold", "tuned", "variants", *base.flag_defaults(training.SnapshotConfig)}
"""Flags of train.py that mean nothing to a trial, or that tune.py means otherwise."""
PLANNED = {"data_dir", "preset", "variants", "seeds", "seed"}
"""Flags that shape the plan itself."""
RESERVED = {"variant", "run_name", "resume", "runs", "run"}
"""Flags of the scripts that the plan sets itself."""


@dataclass(frozen=True)
class Plan:
    """The steps, what they work on, and what there is to say before they start."""

    data_dir: Path
    test_dir: Path | None
    preset: str
    generated: bool
    notes: tuple[str, ...]
    steps: tuple[Step, ...]
    folders: Mapping[str, Path]
    """By flag, where the scripts write: work_dir, folds_dir, out_dir, submissions_dir."""
    side_by_side: int = 1
    """Models that are trained at a time, each in a process of its own."""

    def submission(self) -> str | None:
        """The file to upload; None where there is no test."""
        ((what, file, *_),) = self.args_of("validate")
        return file if what == "submission" else None

    def args_of(self, script: str) -> list[tuple[str, ...]]:
        """The arguments of each call of a script."""
        return [step.args for step in self.steps if step.script == script]


def make_plan(args: Sequence[str]) -> Plan:
    """What `run_all.sh` with these flags does, worked out without doing it."""
    flags = dict(cli.flag_groups(args, "run_all.sh"))  # of a flag that is given twice the last counts, as everywhere
    if reserved := sorted(RESERVED & flags.keys()):
        raise ConfigError(f"--{reserved[0]}", "run_all.sh sets it itself", "leave it out, or call the scripts one by one")
    data_dir, generated = _data_dir(flags)
    preset_name = _value(flags, "preset") or ("fast" if generated else "full")
    if preset_name not in PRESETS:
        raise ConfigError("--preset", f"no preset is called {preset_name!r}", f"choose from {', '.join(PRESETS)}")
    preset = PRESETS[preset_name]
    if _value(flags, "fold") == "full":
        problem = "full holds nothing out, so nothing gives a local score"
        raise ConfigError("--fold", problem, "run without it, then train.py --fold full")
    test_dir = Path(_value(flags, "test_dir") or data_dir / "test")
    has_test = generated or test_dir.is_dir()
    if "test_dir" in flags and not has_test:
        raise DataError(test_dir, "no such folder", "give the folder that holds a folder for each query")
    passed_on = {name: words for name, words in flags.items() if name not in PLANNED}
    routed = route_flags(passed_on, SCRIPTS if has_test else WITHOUT_TEST)
    seeds = _seeds(flags)
    if "seed" in flags:
        routed = {script: [*words, "--seed", str(seeds[0])] if script != "validate" else words for script, words in routed.items()}
    data = ("--data_dir", str(data_dir))
    notes = []
    if generated:
        notes.append(
            f"no {base.default_path('data_dir')}/ here: running on a generated challenge in {data_dir} "
            f"(put the competition's data into {base.default_path('data_dir')}/)"
        )
    if not has_test:
        notes.append(f"no test folder in {data_dir}: this run ends with local scores and a report, there is nothing to submit")
    variants = _variants(flags, preset)
    plan = [Step("generate a challenge", "sample", ("--out", str(data_dir)))] if generated else []
    by_lists = folds.choose_split_lists(data_dir, prefer_txt=False, count_given=False)
    given = bool({"folds", "prefer_txt_split"} & flags.keys()) or by_lists
    fold_count = () if given else ("--folds", str(preset.values["folds"]))
    plan += [
        Step("check and pack the data", "prepare", (*data, *routed["prepare"])),
        Step("split into folds", "make_folds", (*data, *fold_count, *routed["make_folds"])),
    ]
    tuned = _value(flags, "tuned") or "auto"
    if tuned == "auto":
        names = variants[: preset.tuned_variants] if preset.tuned_variants else variants
        chain = names[0] if len(names) == 1 else None
        plan.append(Step("tune", "tune", (*names, *data, "--preset", preset_name, *routed["tune"]), chain=chain))
    train_flags = [word for name, words in passed_on.items() if name != "tuned" for word in words if _takes("train", name)]
    train_steps = [
        _train_step(variant, seed, [*data, "--preset", preset_name, *train_flags], tuned) for variant in variants for seed in seeds
    ]
    plan += train_steps
    run_names = [step.args[step.args.index("--run_name") + 1] for step in train_steps]
    folders = {name: Path(_value(flags, name) or base.default_path(name)) for name in base.WRITTEN_FOLDERS}
    if has_test:
        submission = _value(flags, "out") or str(folders["submissions_dir"] / "submission.csv")
        chosen = [word for name, value in preset.ensemble.items() if name not in flags for word in (f"--{name}", value)]
        plan.append(Step("rank the candidates", "ensemble", (*data, "--runs", *run_names, *chosen, *routed["ensemble"])))
        plan.append(Step("check the submission", "validate", ("submission", submission, *data, *routed["validate"])))
    else:
        plan.append(Step("score the runs", "validate", ("oof", *data, "--runs", *run_names, *routed["validate"])))
    plan.append(Step("draw what was learned", "report", (*data, "--run", *run_names, *routed["report"]), optional=True))
    side_by_side = effective_processes() if preset.side_by_side else 1
    return Plan(data_dir, test_dir if has_test else None, preset_name, generated, tuple(notes), tuple(plan), folders, side_by_side)


def route_flags(flags: Mapping[str, Sequence[str]], scripts: Mapping[str, type] = SCRIPTS) -> dict[str, list[str]]:
    """Hands each flag (name -> its words) on to the scripts that know it. ConfigError for a flag that none knows."""
    routed: dict[str, list[str]] = {script: [] for script in scripts}
    for name, words in flags.items():
        takers = [script for script, kind in scripts.items() if _takes(script, name, kind)]
        if not takers:
            known = set().union(*(base.flag_defaults(kind) for kind in scripts.values()), PLANNED)
            close = difflib.get_close_matches(name, sorted(known), n=3)
            hint = f"did you mean {', '.join('--' + word for word in close)}?" if close else "see `python solution/train.py --help`"
            raise ConfigError(f"--{name}", "no script knows this flag", hint)
        for script in takers:
            if name != "fold" or script == "train" or _word(words).isdecimal():  # all and full are train.py's words
                routed[script] += words
    return routed


def run_plan(plan: Plan) -> int:
    """Runs the whole plan and prints its summary; returns the exit code."""
    began = time.perf_counter()
    preflight.check_before_run(plan.data_dir, plan.test_dir, plan.folders, plan.args_of("train"))

    def forecast(step: Step) -> None:
        if step.script == "make_folds":
            print(preflight.forecast(plan.data_dir, plan.args_of("train"), plan.args_of("tune")), flush=True)

    ended = run_steps(plan.steps, plan.side_by_side, forecast)
    if ended.code:
        return ended.code
    print(f"\nall done in {files.format_duration(time.perf_counter() - began)}")
    drawn = not any(step.script == "report" for step in ended.failed)
    print("\n".join(outcome.summary_lines(plan.folders, plan.submission(), plan.args_of("report"), drawn, plan.generated)))
    return 0


def _data_dir(flags: Mapping[str, Sequence[str]]) -> tuple[Path, bool]:
    """The data folder, and whether it is the generated challenge."""
    if "data_dir" in flags:
        data_dir = Path(_word(flags["data_dir"]))
        if not data_dir.is_dir():
            raise DataError(data_dir, "no such folder", challenge.NO_DATA_FIX)
        return data_dir, False
    default = base.default_path("data_dir")
    return (default, False) if default.is_dir() else (base.sample_dir(), True)


def _variants(flags: Mapping[str, Sequence[str]], preset: Preset) -> tuple[str, ...]:
    """What is trained: --variants, or with --use_gar alone the variant that learns from parts, or the preset's."""
    if "variants" not in flags:
        return ("sgar",) if "use_gar" in flags else preset.variants
    variants = tuple(dict.fromkeys(_words(flags["variants"])))
    if unknown := [name for name in variants if name not in presets.VARIANTS]:
        raise ConfigError("--variants", f"no variant is called {unknown[0]!r}", f"choose from {', '.join(presets.VARIANTS)}")
    return variants


def _seeds(flags: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
    """The seeds that each variant is trained with: --seeds, or --seed, or 0."""
    words = _words(flags.get("seeds") or flags.get("seed") or ("--seeds=0",))
    if problem := [word for word in words if not word.isdecimal()]:
        raise ConfigError("--seeds", f"{problem[0]!r} is no seed", "give whole numbers: --seeds 0 1 2")
    return tuple(dict.fromkeys(map(int, words)))


def _train_step(variant: str, seed: int, flags: Sequence[str], tuned: str) -> Step:
    """The training of a variant. Its run is named after what makes it, so that the same command finds it again."""
    flags = [*flags, *(["--seed", str(seed)] if seed else [])]
    config, _ = cli.parse_train([variant, *flags, "--tuned", "none"], None)
    made_of = {name: value for name, value in base.flatten(config).items() if name not in training.NON_MODEL_SETTINGS}
    tag = files.content_hash(made_of, str(config.data.data_dir.resolve()))[:6]
    name = "-".join([variant, config.preset, *([f"seed{seed}"] if seed else []), tag])
    title = f"train {variant}" + (f", seed {seed}" if seed else "")
    return Step(title, "train", (variant, *flags, "--tuned", tuned, "--run_name", name, "--resume", "same"), chain=variant)


def _takes(script: str, flag: str, kind: type | None = None) -> bool:
    """Whether a script knows a flag; `--no_x` counts as `x`."""
    names = set(base.flag_defaults(kind or SCRIPTS[script]))
    if script == "tune":
        names = (names | set(base.flag_defaults(training.TrainConfig))) - NOT_TUNED
    return flag in names or flag.removeprefix("no_") in names


def _value(flags: Mapping[str, Sequence[str]], name: str) -> str | None:
    return _word(flags[name]) if name in flags else None


def _word(words: Sequence[str]) -> str:
    """The value of a flag, which has one."""
    return _words(words)[0]


def _words(words: Sequence[str]) -> list[str]:
    """The values of a flag, at least one."""
    flag, _, joined = words[0].partition("=")
    values = [*([joined] if joined else []), *words[1:]]
    if not values:
        raise ConfigError(flag, "no value", "give one after it")
    return values
