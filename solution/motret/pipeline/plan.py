"""The pipeline from data to submission as a list of script calls: planned, checked and run."""

import difflib
import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from motret.config import base, cli, presets, scripts, training
from motret.config.presets import Preset
from motret.data import folds
from motret.errors import ConfigError, DataError
from motret.formats import challenge
from motret.pipeline import preflight, summary
from motret.pipeline.steps import Step, available_cores, run_steps, visible_gpus
from motret.pipeline.tasks import (
    CLAIMS_DIR,
    Task,
    TaskShare,
    list_tasks,
    parse_share,
    run_once,
    run_tasks,
)
from motret.utils import files, reading, stopping

logger = logging.getLogger(__name__)

SCRIPTS: dict[str, type] = {
    "prepare": scripts.PrepareConfig,
    "make_folds": scripts.FoldConfig,
    "tune": scripts.TuneConfig,
    "train": training.TrainConfig,
    "ensemble": scripts.EnsembleConfig,
    "validate": scripts.SubmissionConfig,
    "report": scripts.ReportConfig,
}
"""The scripts in order, and the settings whose names are their flags."""
SCRIPTS_WITHOUT_TEST = SCRIPTS | {"validate": scripts.OofConfig}
"""The same if there is no test folder: validate.py then gives local scores."""
NOT_FOR_TRIALS = {"max_minutes", "jobs", "fold", "tuned", "variants", "log"} | {
    *base.flag_defaults(training.SnapshotConfig)
}
"""Flags of train.py that do not apply to a trial, or mean something else to tune.py."""
PLAN_FLAGS = {
    "data_dir",
    "preset",
    "variants",
    "seeds",
    "seed",
    "all_data",
    "rerank",
    "task",
    "tasks",
}
"""Flags that shape the plan itself."""
RESERVED_FLAGS = {"variant", "run_name", "resume", "runs", "run"}
"""Flags of the scripts that the plan sets itself."""

RERANK_FLAGS = {"out_dir", "test_dir"} | {
    *base.flag_defaults(base.DataConfig),
    *base.flag_defaults(base.MachineConfig),
}
"""Flags that rerank.py gets too; --epochs, --lr and the like are those of the runs."""
DATA_SCRIPTS = {"sample", "prepare", "make_folds"}
"""The scripts that come before the trainings."""
RERANK_SCORES = "likelihood.npz"
"""What rerank.py writes into a run folder."""

Words = Sequence[str]
"""A flag and its values as they stand in the arguments."""


@dataclass(frozen=True)
class Plan:
    """The steps, what they work on, and notes to print before they start."""

    data_dir: Path
    test_dir: Path | None
    preset: str
    generated: bool
    """Whether the data are the generated challenge."""
    notes: tuple[str, ...]
    steps: tuple[Step, ...]
    folders: Mapping[str, Path]
    """Flag -> folder that scripts write to: work_dir, folds_dir, out_dir, submissions_dir."""
    n_parallel: int = 1
    """Variants that are trained at a time, each in its own process."""
    gpus: tuple[str, ...] = ()
    """GPUs that variants, folds and trials share."""
    task_share: TaskShare | None = None
    """The tasks that this call does, of all trainings; None: it does everything."""
    lists_tasks: bool = False
    """Whether the tasks are to be listed."""

    def submission(self) -> str | None:
        """The file to upload; None where there is no test."""
        ((command, file, *_),) = self.args_of("validate")
        return file if command == "submission" else None

    def run_names(self) -> list[str]:
        """Names of the runs that the plan trains, each once."""
        return _run_names(self.args_of("train"))

    def tasks(self) -> list[Task]:
        """The trainings, a fold each."""
        train_steps = [step for step in self.steps if step.script == "train"]
        return list_tasks(train_steps, self.args_of("make_folds")[0])

    def args_of(self, script: str) -> list[tuple[str, ...]]:
        """The arguments of each call of a script."""
        return [step.args for step in self.steps if step.script == script]


@dataclass(frozen=True)
class Request:
    """The flags of run_all.sh, read.

    flags: name -> words of every flag; passed: of those that go to scripts as they are; routed:
    script -> the words that it gets of these; gpus: names of the GPUs that may be used. all_data:
    whether each run also trains a model of all data; rerank: whether each run also scores the
    candidates by likelihood; task_share: the tasks that this call does, None: everything.
    """

    data_dir: Path
    generated: bool
    test_dir: Path | None
    preset_name: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    all_data: bool
    rerank: bool
    tuned: str
    flags: Mapping[str, Words]
    passed: Mapping[str, Words]
    routed: Mapping[str, Words]
    gpus: tuple[str, ...]
    task_share: TaskShare | None = None

    @property
    def n_parallel(self) -> int:
        """Variants that are trained at a time: one per GPU of several, else as the preset says.

        With --fold_jobs one, since its folds share the GPUs then.
        """
        if len(self.gpus) > 1:
            return 1 if "fold_jobs" in self.flags else min(len(self.gpus), len(self.variants))
        return available_cores() if self.preset.parallel else 1

    @property
    def fold_jobs(self) -> int:
        """Folds of a variant that are trained at a time: one per GPU that it has of several."""
        return max(1, len(self.gpus) // self.n_parallel) if len(self.gpus) > 1 else 1

    @property
    def preset(self) -> Preset:
        return presets.PRESETS[self.preset_name]

    @property
    def data(self) -> tuple[str, str]:
        """The words that name the data."""
        return "--data_dir", str(self.data_dir)

    def folders(self) -> dict[str, Path]:
        """Flag -> folder that scripts write to."""
        return {
            name: Path(_value(self.flags, name) or base.default_path(name))
            for name in base.WRITTEN_FOLDERS
        }


def make_plan(args: Sequence[str]) -> Plan:
    """The plan of `run_all.sh` with these flags. Nothing is run or written.

    ConfigError for flags that no script knows or that cannot be used, DataError for a folder that
    is missing.
    """
    request = _read_request(args)
    train_steps = _train_steps(request)
    train_calls = [step.args for step in train_steps]
    reranked = _runs_with_tokens(train_calls) if request.rerank else []
    steps = (
        *_data_steps(request),
        *_tune_steps(request),
        *train_steps,
        *_rerank_steps(request, reranked),
        *_score_steps(request, _run_names(train_calls), reranked),
    )
    return Plan(
        request.data_dir,
        request.test_dir,
        request.preset_name,
        request.generated,
        _notes(request),
        steps,
        request.folders(),
        request.n_parallel,
        request.gpus,
        request.task_share,
        _is_switched_on(request.flags, "tasks"),
    )


def run_plan(plan: Plan) -> int:
    """Checks and runs the whole plan, or the tasks of its share, and logs its summary; returns the
    exit code."""
    start = time.perf_counter()
    train_calls, tune_calls = plan.args_of("train"), plan.args_of("tune")
    preflight.check_before_run(plan.data_dir, plan.test_dir, plan.folders, train_calls)
    if plan.task_share is not None:
        return _run_share(plan, plan.task_share)

    def log_forecast(step: Step) -> None:
        if step.script == "make_folds":
            logger.info(preflight.forecast(plan.data_dir, train_calls, tune_calls, plan.n_parallel))

    result = run_steps(plan.steps, plan.n_parallel, plan.gpus, log_forecast)
    if result.code:
        return result.code
    logger.info(f"\nall done in {files.format_duration(time.perf_counter() - start)}")
    has_report = not any(step.script == "report" for step in result.failed)
    lines = summary.summary_lines(
        plan.folders, plan.submission(), plan.run_names(), has_report, plan.generated
    )
    logger.info("\n".join(lines))
    return 0


def _run_share(plan: Plan, task_share: TaskShare) -> int:
    """Prepares the data, unless another process does, and trains the tasks of a share."""
    data_steps = [step for step in plan.steps if step.script in DATA_SCRIPTS]
    selected = task_share.select(plan.tasks())
    logger.info(f"task {task_share}: {len(selected)} of {len(plan.tasks())} trainings")
    folder = plan.folders["out_dir"] / CLAIMS_DIR

    def stop() -> None:
        stopping.end_children(signal.SIGTERM)

    code = run_once("data", folder, lambda: run_steps(data_steps).code, stop)
    code = code or run_tasks(selected, folder, lambda step: run_steps([step]).code, stop)
    if not code:
        logger.info(
            f"\ntask {task_share} is done; once all are, the same command without --task ranks"
        )
    return code


# ---- the flags of run_all.sh


def _read_request(args: Sequence[str]) -> Request:
    flags = _group_flags(args)
    if reserved := sorted(RESERVED_FLAGS & flags.keys()):
        fix = "leave it out, or call the scripts one by one"
        raise ConfigError(f"--{reserved[0]}", "run_all.sh sets it itself", fix)
    data_dir, generated = _find_data(flags)
    preset_name = _value(flags, "preset") or ("fast" if generated else "full")
    preset = presets.find_preset(preset_name)
    if _value(flags, "fold") == "full":
        problem = "full holds nothing out, so there is no local score"
        raise ConfigError("--fold", problem, "give --all_data instead, which trains it too")
    test_dir = Path(_value(flags, "test_dir") or data_dir / "test")
    has_test = generated or reading.is_folder(test_dir)
    if "test_dir" in flags and not has_test:
        raise DataError(test_dir, "no such folder", "give the folder with a folder for each query")
    passed = {name: words for name, words in flags.items() if name not in PLAN_FLAGS}
    routed = _route_flags(passed, SCRIPTS if has_test else SCRIPTS_WITHOUT_TEST)
    _allow_named_towers(flags, routed)
    seeds = _find_seeds(flags)
    task_share = parse_share(_value(flags, "task") or "") if "task" in flags else None
    if "seed" in flags:
        for script in routed.keys() - {"validate"}:
            routed[script] += ["--seed", str(seeds[0])]
    return Request(
        data_dir=data_dir,
        generated=generated,
        test_dir=test_dir if has_test else None,
        preset_name=preset_name,
        variants=_find_variants(flags, preset),
        seeds=seeds,
        all_data=_wants_all_data(flags),
        rerank=_wants_rerank(flags, has_test),
        tuned=_value(flags, "tuned") or "auto",
        flags=flags,
        passed=passed,
        routed=routed,
        gpus=() if "device" in flags else tuple(visible_gpus()),
        task_share=task_share,
    )


def _group_flags(args: Sequence[str]) -> dict[str, list[str]]:
    """Flag name -> its words: the flag and the values after it. Of equal flags the last counts.

    ConfigError for a value before the first flag.
    """
    groups: dict[str, list[str]] = {}
    words: list[str] | None = None
    for arg in args:
        if arg.startswith("--"):
            words = groups[arg[2:].partition("=")[0].replace("-", "_")] = [arg]
        elif words is None:
            fix = "flags start with --; see --help"
            raise ConfigError("run_all.sh", f"{arg!r} is no flag", fix)
        else:
            words.append(arg)
    return groups


def _route_flags(
    flags: Mapping[str, Words], script_kinds: Mapping[str, type]
) -> dict[str, list[str]]:
    """Script -> the words of the flags that it knows. ConfigError for a flag that none knows."""
    routed: dict[str, list[str]] = {script: [] for script in script_kinds}
    for name, words in flags.items():
        takers = [script for script, kind in script_kinds.items() if _takes(script, kind, name)]
        if not takers:
            raise _unknown_flag_error(name, script_kinds)
        if name == "fold" and not _values(words)[0].isdecimal():
            takers = ["train"]  # `all` means something to train.py alone
        for script in takers:
            routed[script] += words
    return routed


def _allow_named_towers(flags: Mapping[str, Words], routed: Mapping[str, list[str]]) -> None:
    """Lets scripts that open runs import the classes that this command names as towers."""
    towers = [_value(flags, name) or "" for name in ("motion_tower", "text_tower")]
    classes = [name for name in towers if ":" in name and not name.startswith("hf:")]
    if classes and "allow_towers" not in flags:
        for script in routed.keys() & {"ensemble", "report"}:
            routed[script] += ["--allow_towers", *classes]


def _takes(script: str, kind: type, flag: str) -> bool:
    """Whether a script with settings of this kind knows a flag; `no_x` counts as `x`."""
    names = set(base.flag_defaults(kind))
    if script == "tune":
        names = (names | set(base.flag_defaults(training.TrainConfig))) - NOT_FOR_TRIALS
    return flag in names or flag.removeprefix("no_") in names


def _unknown_flag_error(name: str, script_kinds: Mapping[str, type]) -> ConfigError:
    all_flags = PLAN_FLAGS.union(*(base.flag_defaults(kind) for kind in script_kinds.values()))
    similar = difflib.get_close_matches(name, sorted(all_flags), n=3)
    if similar:
        fix = f"did you mean {', '.join('--' + flag for flag in similar)}?"
    else:
        fix = "see `python solution/train.py --help`"
    return ConfigError(f"--{name}", "no script knows this flag", fix)


def _find_data(flags: Mapping[str, Words]) -> tuple[Path, bool]:
    """The data folder, and whether it is the generated challenge."""
    if folder := _value(flags, "data_dir"):
        data_dir = Path(folder)
        if not reading.is_folder(data_dir):
            raise DataError(data_dir, "no such folder", challenge.NO_DATA_FIX)
        return data_dir, False
    default = base.default_path("data_dir")
    return (default, False) if reading.is_folder(default) else (base.sample_dir(), True)


def _find_variants(flags: Mapping[str, Words], preset: Preset) -> tuple[str, ...]:
    """The variants to train: --variants; with --use_gar alone sgar; else those of the preset."""
    if "variants" not in flags:
        return ("sgar",) if "use_gar" in flags else preset.variants
    variants = tuple(dict.fromkeys(_values(flags["variants"])))
    presets.check_variants(variants, "--variants")
    return variants


def _find_seeds(flags: Mapping[str, Words]) -> tuple[int, ...]:
    """The seeds that each variant is trained with: --seeds, or --seed, or 0."""
    words = _values(flags.get("seeds") or flags.get("seed") or ["--seeds=0"])
    if invalid := [word for word in words if not word.isdecimal()]:
        fix = "give whole numbers: --seeds 0 1 2"
        raise ConfigError("--seeds", f"{invalid[0]!r} is no seed", fix)
    return tuple(dict.fromkeys(map(int, words)))


def _wants_all_data(flags: Mapping[str, Words]) -> bool:
    """Whether --all_data is given. ConfigError where it has a value or --fold names one fold."""
    if not _is_switched_on(flags, "all_data"):
        return False
    if (fold := _value(flags, "fold") or "all") != "all":
        problem = f"--fold {fold} ranks with that fold's models alone"
        raise ConfigError("--all_data", problem, "leave one of the two out")
    return True


def _wants_rerank(flags: Mapping[str, Words], has_test: bool) -> bool:
    """Whether --rerank is given. ConfigError where it has a value, there is nothing to rank, or
    --members names files."""
    if not _is_switched_on(flags, "rerank"):
        return False
    if not has_test:
        raise ConfigError("--rerank", "there is no test to rank", "leave it out")
    if "members" in flags:
        fix = "call rerank.py and ensemble.py yourself, with all files"
        raise ConfigError("--rerank", "does not go with --members", fix)
    return True


def _is_switched_on(flags: Mapping[str, Words], name: str) -> bool:
    """Whether a flag without a value is given. ConfigError where it has one."""
    if name not in flags:
        return False
    if flags[name][1:] or "=" in flags[name][0]:
        raise ConfigError(f"--{name}", "takes no value", "give it alone")
    return True


def _value(flags: Mapping[str, Words], name: str) -> str | None:
    """The (first) value of a flag; None where the flag is not given."""
    return _values(flags[name])[0] if name in flags else None


def _values(words: Words) -> list[str]:
    """The values in a flag's words. ConfigError where there is none."""
    flag, equals, value = words[0].partition("=")
    values = [*([value] if equals and value else []), *words[1:]]
    if not values:
        raise ConfigError(flag, "no value", "give one after it")
    return values


def _run_names(train_calls: Sequence[Sequence[str]]) -> list[str]:
    """The run of each call of train.py, each once."""
    names = (args[args.index("--run_name") + 1] for args in train_calls)
    return list(dict.fromkeys(names))


# ---- the steps


def _notes(request: Request) -> tuple[str, ...]:
    notes = []
    if request.generated:
        default = base.default_path("data_dir")
        notes.append(
            f"no {default}/ here: running on a generated challenge in {request.data_dir} "
            f"(put the competition's data into {default}/)"
        )
    if request.test_dir is None:
        notes.append(
            f"no test folder in {request.data_dir}: this run ends with local scores and a report, "
            "there is nothing to submit"
        )
    return tuple(notes)


def _data_steps(request: Request) -> list[Step]:
    """Generating, checking, packing and splitting the data."""
    routed, data = request.routed, request.data
    split_lists = folds.choose_split_lists(request.data_dir, prefer_txt=False, count_given=False)
    if split_lists or {"folds", "prefer_txt_split"} & request.flags.keys():
        n_folds: tuple[str, ...] = ()
    else:
        n_folds = ("--folds", str(request.preset.values["folds"]))
    steps = [
        Step("check and pack the data", "prepare", (*data, *routed["prepare"])),
        Step("split into folds", "make_folds", (*data, *n_folds, *routed["make_folds"])),
    ]
    if request.generated:
        sample = Step("generate a challenge", "sample", ("--out", str(request.data_dir)))
        steps.insert(0, sample)
    return steps


def _tune_steps(request: Request) -> list[Step]:
    """The search for settings, unless --tuned names a file or none."""
    if request.tuned != "auto":
        return []
    variants = request.variants[: request.preset.tuned_variants]
    if request.task_share is not None:
        _check_tuned(request, variants)
        return []
    chain = variants[0] if len(variants) == 1 else None
    preset = ("--preset", request.preset_name)
    args = (*variants, *request.data, *preset, *request.routed["tune"])
    if len(request.gpus) > 1 and (chain is None or len(request.variants) == 1):
        args = (*args, "--jobs", str(len(request.gpus)))
    return [Step("tune", "tune", args, chain=chain)]


def _check_tuned(request: Request, variants: Sequence[str]) -> None:
    """ConfigError where workers that share the trainings would train with other settings than a
    search finds later."""
    folder = request.folders()["out_dir"] / "tune"
    missing = [name for name in variants if not (folder / name / "best.json").is_file()]
    if missing:
        problem = f"{', '.join(missing)} would be tuned after the training"
        fix = "run tune.py before, or give --tuned none here and in the last call"
        raise ConfigError("--task", problem, fix)


def _train_steps(request: Request) -> list[Step]:
    """A training for each variant and seed: the folds, then with --all_data the model of all."""
    left_out = {"tuned"} | ({"fold"} if request.all_data else set())
    passed = [
        word
        for name, words in request.passed.items()
        if name not in left_out and _takes("train", training.TrainConfig, name)
        for word in words
    ]
    flags = [*request.data, "--preset", request.preset_name, *passed]
    if request.fold_jobs > 1 and "fold_jobs" not in request.flags:
        flags += ["--fold_jobs", str(request.fold_jobs)]
    steps = []
    for variant in request.variants:
        for seed in request.seeds:
            step = _train_step(variant, seed, flags, request.tuned)
            steps.append(step)
            if request.all_data:
                steps.append(_all_data_step(step))
    return steps


def _train_step(variant: str, seed: int, flags: Sequence[str], tuned: str) -> Step:
    """The training of a variant with a seed.

    Its run name contains a hash of the settings, so that the same command finds the run again.
    """
    flags = [*flags, *(["--seed", str(seed)] if seed else [])]
    config, _ = cli.parse_train([variant, *flags, "--tuned", "none"], None)
    settings, data_dir = training.model_settings(config), str(config.data.data_dir.resolve())
    settings_hash = files.content_hash(settings, data_dir)[:6]
    seed_name = [f"seed{seed}"] if seed else []
    run_name = "-".join([variant, str(config.preset), *seed_name, settings_hash])
    title = f"train {variant}" + (f", seed {seed}" if seed else "")
    args = (variant, *flags, "--tuned", tuned, "--run_name", run_name, "--resume", "same")
    return Step(title, "train", args, chain=variant)


def _all_data_step(folds_step: Step) -> Step:
    """The training of the model of all data, in the run of a training of its folds."""
    args = (*folds_step.args, "--fold", "full")
    return replace(folds_step, title=f"{folds_step.title}, all data", args=args)


def _runs_with_tokens(train_calls: Sequence[Sequence[str]]) -> list[str]:
    """The runs whose motion towers have tokens, each once."""
    configs = (cli.parse_train(args, None)[0] for args in train_calls)
    names = (config.run_name for config in configs if config.motion.motion_tower != "frame")
    return list(dict.fromkeys(name for name in names if name))


def _rerank_steps(request: Request, run_names: Sequence[str]) -> list[Step]:
    """The likelihoods of captions by some runs."""
    if not run_names:
        return []
    words = [
        word
        for name, words in request.passed.items()
        if name.removeprefix("no_") in RERANK_FLAGS
        for word in words
    ]
    words += _allowed_towers(request)
    return [Step("score by likelihood", "rerank", (*request.data, "--runs", *run_names, *words))]


def _allowed_towers(request: Request) -> list[str]:
    """The words of --allow_towers, as ensemble.py gets them."""
    flag, words = "--allow_towers", request.routed["ensemble"]
    if flag not in words:
        return []
    rest = list(words[words.index(flag) + 1 :])
    end = next((index for index, word in enumerate(rest) if word.startswith("--")), len(rest))
    return [flag, *rest[:end]]


def _score_steps(request: Request, run_names: Sequence[str], reranked: Sequence[str]) -> list[Step]:
    """Ranking and checking the submission, or without a test the local scores; then the report.

    reranked: runs whose likelihoods are members too.
    """
    routed, data = request.routed, request.data
    report_args = (*data, "--run", *run_names, *routed["report"])
    report = Step("draw the report", "report", report_args, optional=True)
    if request.test_dir is None:
        args = ("oof", *data, "--runs", *run_names, *routed["validate"])
        return [Step("score the runs", "validate", args), report]
    default = request.folders()["submissions_dir"] / "submission.csv"
    submission = _value(request.flags, "out") or str(default)
    from_preset = [
        word
        for name, value in request.preset.ensemble.items()
        if name not in request.flags
        for word in (f"--{name}", value)
    ]
    files = [request.folders()["out_dir"] / name / RERANK_SCORES for name in reranked]
    members = ["--members", *map(str, files)] if reranked else []
    args = (*data, "--runs", *run_names, *members, *from_preset, *routed["ensemble"])
    checks = ("submission", submission, *data, *routed["validate"])
    return [
        Step("rank the candidates", "ensemble", args),
        Step("check the submission", "validate", checks),
        report,
    ]
