"""A run from beginning to end: data, folds, captions, then every fold that is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from motret.config.training import TrainConfig
from motret.data import caption_mirror, data_report, dataset
from motret.data.dataset import TrainingData
from motret.data.folds import Folds, choose_split_lists, read_folds, read_or_make_folds
from motret.data.parts import part_texts
from motret.errors import ConfigError, FoldError, RunError
from motret.evaluation import local_score
from motret.evaluation.metrics import Score
from motret.models import embed, pretrained, registry, text_tower
from motret.runs import history, provenance
from motret.runs.resolve import resolve_run
from motret.runs.run import Run, create_run_dir, open_run
from motret.skeleton import SMPL
from motret.training import context, fit, objective, resume
from motret.training.context import FoldContext, TrainContext
from motret.utils import progress
from motret.utils.device import choose_device
from motret.utils.parallel import share_threads

MAX_EXCLUDED_FRACTION = 1 / 3
"""A larger share of excluded negatives stops a run: such a threshold does not tell captions apart."""


def load_data(config: TrainConfig, sources: Mapping[str, str]) -> tuple[TrainingData, Folds]:
    """The packed data and its folds, made where they are missing; says which."""
    data = dataset.load_training(config.data, config.machine.jobs, config.motion.features)
    left_out = f", {len(data.training.skipped)} left out (see `python solution/prepare.py`)" if data.training.skipped else ""
    print(
        f"{len(data.training.ids)} motions{left_out}: features {'as packed before' if data.cache_hit else 'packed'} in {data.store.folder}"
    )
    if data.store.config.skeleton != SMPL.name or data.store.config.metres != 1:
        print(f"bodies: {data_report.describe_bodies(data.store.config)}")
    # what belongs together is told by canonical features, whatever the tower sees
    seen = data if data.store.config.kind == "canonical" else dataset.load_training(config.data, config.machine.jobs)
    by_flag = sources.get("folds") == "flag"
    lists = choose_split_lists(config.data.data_dir, config.prefer_txt_split, by_flag)
    place = config.data.folds_dir
    found, there = read_or_make_folds(seen, place, config.folds, config.fold_seed, lists, config.prefer_txt_split)
    if sources.get("fold_seed") == "flag" and found.seed not in (None, config.fold_seed):
        command = f"python solution/make_folds.py --folds {found.count} --fold_seed {config.fold_seed}"
        raise FoldError(place, f"folds of --fold_seed {found.seed}", f"leave the flag out, or run `{command}`")
    if by_flag and not config.prefer_txt_split and found.count != config.folds:
        problem = f"{found.count} folds, where --folds {config.folds} was asked for"
        command = f"python solution/make_folds.py --folds {config.folds}"
        raise FoldError(config.data.folds_dir, problem, f"leave the flag out, or run `{command}`")
    if longer := int((data.store.lengths > config.motion.max_frames).sum()):
        how = {"subsample": "evenly thinned", "crop": "cut to their middle", "start": "cut to their beginning"}[config.motion.long_motions]
        print(f"{longer} motions longer than --max_frames {config.motion.max_frames} are {how}")
    many = "s" if found.count > 1 else ""
    held_out = f" ({lists[1].name} is held out; --folds K makes folds instead)" if lists and found.count == 1 else ""
    print(f"{found.count} fold{many} {'read from' if there else 'made in'} {place / 'folds.csv'}{held_out}")
    return data, found


def apply_weights_settings(config: TrainConfig, sources: Mapping[str, str]) -> tuple[TrainConfig, dict[str, str]]:
    """The settings with what a file of published weights decides, and their sources; says what was taken.

    A preset's --text_activation is for its tower from scratch: other towers have their own.
    """
    config, sources, line = pretrained.apply_weights_file(config, sources)
    from_scratch = text_tower.trains_from_scratch(config.text) and not text_tower.is_custom(config.text)
    if sources.get("text_activation", "").startswith("preset") and not from_scratch:
        config = replace(config, text=replace(config.text, text_activation="auto"))
        sources |= {"text_activation": "default"}
    if line:
        print(line)
    return config, sources


def requested_folds(config: TrainConfig, found: Folds) -> list[int | None]:
    """Which folds to train; None is the model of all motions."""
    if config.fold == "all":
        return list(range(found.count))
    if config.fold == "full":
        return [None]
    if int(config.fold) >= found.count:
        raise FoldError("--fold", f"there is no fold {config.fold}: folds are 0 to {found.count - 1}", "give one of them, all or full")
    return [int(config.fold)]


def make_tower_and_context(config: TrainConfig, data: TrainingData) -> tuple[TrainContext, text_tower.TextTower]:
    """What all folds share: motions and captions where they are computed on, and the text tower."""
    tower = registry.make_text_tower(config.text)
    if config.augment.word_dropout and not tower.trims_padding:
        raise ConfigError("--word_dropout", f"{config.text.text_tower} does not say where a caption ends", "leave it out")
    captions = [caption for own in data.training.captions for caption in own]
    parts = part_texts.load_part_texts(config, data) if config.parts.use_gar else None
    if parts is not None:  # what captions say of parts is asked for at test
        captions += [said for own in parts for said in own.values() if said is not None] + part_texts.all_part_texts(captions)
    if config.augment.mirror:
        captions += caption_mirror.mirror_captions(captions).values()
    device = choose_device(config.machine.device)
    bank = embed.make_caption_bank(captions, tower, not text_tower.is_trained(config.text), config.data.work_dir / "text", device)
    published = bank
    if text_tower.is_fine_tuned(config.text) and 0 < config.loss.negative_threshold <= 1:
        published = embed.make_caption_bank(captions, tower, True, config.data.work_dir / "text", device)
    place = context.make_context(config, data, bank, parts, published)
    some = place.motions.gather(torch.arange(min(2, len(data.store.lengths)), device=device))
    registry.check_motion_tower(config.motion, data.store.columns, some, config.parts.use_gar)
    if (share := objective.excluded_negative_fraction(place, config)) > MAX_EXCLUDED_FRACTION:
        problem = f"leaves {share:.0%} of the negatives out, so that little is left to learn from"
        fix = "raise it; above 1 only equal captions are left out, and with 0 none"
        raise ConfigError(f"--negative_threshold {config.loss.negative_threshold:g}", problem, fix)
    return place, tower


def train_run(config: TrainConfig, sources: Mapping[str, str], make_plots: fit.PlotFactory | None = None) -> Run:
    """Trains the folds asked for that are not finished; prints a line for each and one for the run."""
    config, sources = apply_weights_settings(config, sources)
    if config.augment.word_dropout and not text_tower.is_trained(config.text):
        raise ConfigError("--word_dropout", "needs a text tower that trains", "add --unfreeze_text, or leave it out")
    data, found = load_data(config, sources)
    wanted = requested_folds(config, found)
    run = resolve_run(config, sources, data, found)
    print(f"{run.name}: {config.variant} in {run.folder}")
    if (run.folder / "args.json").is_file():
        if checkpoint := resume.resumed_checkpoint(config):
            resume.rewind(run, checkpoint)
        wanted = list(dict.fromkeys([*wanted, *resume.reopen(run)]))
    done = [fold for fold in wanted if (run.has_full_model() if fold is None else fold in run.finished_folds())]
    if done:
        print(f"finished before: {', '.join(run.fold_dir(fold).name for fold in done)}")
    if left := [fold for fold in wanted if fold not in done]:
        place, tower = make_tower_and_context(config, data)
        if tower.note:
            print(tower.note)
        if config.loss.negative_threshold:
            share = objective.excluded_negative_fraction(place, config)
            print(f"{share:.2%} of the pairs of a caption and another motion are no negatives: a caption of that motion says the same")
        jobs = min(len(left), joblib.effective_n_jobs(config.fold_jobs))
        workers = _make_workers(config, jobs) if jobs > 1 else None
        if (run.folder / "args.json").is_file():
            provenance.check_inputs(open_run(run.folder), tower, resumed=True)
        else:
            create_run_dir(replace(run, inputs=provenance.input_digests(config, tower)))
        if workers:
            del place  # each process has its own; what was slow to make is kept on disk
            _fit_folds_parallel(run, left, workers, jobs, make_plots)
        else:
            for fold in left:
                _report_fold(
                    run,
                    fold,
                    fit.fit(
                        FoldContext(run, fold, data, found, place, tower),
                        None if progress.on_terminal() else _print_epoch_callback(run, fold),
                        make_plots,
                    ),
                )
    if run.finished_folds():
        if config.checkpoint.selection != "last":
            print(f"{run.name}: the epoch of each fold is {history.BEST_EPOCH_NOTE}")
        print(local_score.out_of_fold_score([run], found).summary(run.name))
    return run


def _make_workers(config: TrainConfig, jobs: int) -> joblib.Parallel:
    """Processes for folds. ConfigError for a backend that joblib does not know, or that shares a process."""
    name = config.joblib_backend
    if name == "threading":
        problem = "threads of one process share torch's random state, so that no run could be repeated"
        raise ConfigError("--joblib_backend", problem, "take loky or multiprocessing")
    try:
        return joblib.Parallel(n_jobs=jobs, backend=name)
    except (ValueError, ImportError) as unknown:
        known = ", ".join(sorted(set(joblib.parallel.BACKENDS) - {"threading"}))
        raise ConfigError("--joblib_backend", f"joblib has no backend {name!r} ready ({unknown})", f"take one of {known}") from unknown


def _fit_folds_parallel(
    run: Run, left: Sequence[int | None], workers: joblib.Parallel, jobs: int, make_plots: fit.PlotFactory | None
) -> None:
    """Trains folds in processes that share the threads of this one. What is wrong in one of them is raised here."""
    shares = share_threads(len(left), jobs, torch.get_num_threads())
    print(f"{jobs} folds side by side, {shares[0]} thread{'s' if shares[0] > 1 else ''} each", flush=True)
    try:
        workers(joblib.delayed(_fit_fold_worker)(run, fold, threads, make_plots) for fold, threads in zip(left, shares, strict=True))
    except TerminatedWorkerError as killed:
        raise RunError(run.folder, "a process that trained a fold was killed, perhaps for want of memory", "lower --fold_jobs") from killed


def _fit_fold_worker(run: Run, fold: int | None, threads: int, make_plots: fit.PlotFactory | None) -> None:
    """Trains one fold in a process of its own; a line for each epoch, since bars of several processes would overwrite each other."""
    torch.set_num_threads(threads)
    data = dataset.load_training(run.config.data, jobs=1, kind=run.config.motion.features)
    found = read_folds(data, run.config.data.folds_dir)
    place, tower = make_tower_and_context(run.config, data)
    score = fit.fit(FoldContext(run, fold, data, found, place, tower), _print_epoch_callback(run, fold), make_plots)
    _report_fold(run, fold, score)


def _print_epoch_callback(run: Run, fold: int | None) -> history.EpochCallback:
    """Prints a line after each epoch, where no bar can be drawn."""
    return lambda line: print(f"{run.fold_dir(fold).name} {history.describe_epoch(line)}", flush=True)


def _report_fold(run: Run, fold: int | None, score: Score | None) -> None:
    told = f"score {score} ({score.motions} motions)" if score else "trained on all motions"
    print(f"{run.fold_dir(fold)}: {told}", flush=True)
