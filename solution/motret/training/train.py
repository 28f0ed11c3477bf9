"""A run from beginning to end: data, folds, captions, then every requested fold."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from motret.config import base
from motret.config.training import TrainConfig
from motret.data import caption_mirror, data_report, dataset
from motret.data.dataset import TrainingData
from motret.data.folds import Folds, choose_split_lists, read_folds, read_or_make_folds
from motret.data.parts import part_texts
from motret.errors import ConfigError, FoldError, RunError
from motret.evaluation import local_score
from motret.evaluation.metrics import Score
from motret.models import embed, pretrained, registry, text_tower
from motret.models.text_tower import TextTower
from motret.runs import history, provenance
from motret.runs.resolve import resolve_run
from motret.runs.run import Run, create_run_dir, open_run
from motret.skeleton import SMPL
from motret.training import context as context_module
from motret.training import distributed, fit, forecast, objective, resume
from motret.training.context import FoldContext, TrainContext
from motret.training.distributed import ONE_PROCESS, Ranks
from motret.training.forecast import DataSize
from motret.utils import progress, tracking
from motret.utils.device import choose_device, count_cards, describe_precision
from motret.utils.machine import measure_machine, measure_machine_apart
from motret.utils.parallel import begin_worker, context_backend, share_threads

logger = logging.getLogger(__name__)

MAX_EXCLUDED_FRACTION = 1 / 3
"""A larger fraction of excluded negatives stops a run: such a threshold does not tell captions
apart."""
LOCAL_BACKENDS = ("loky", "multiprocessing")
"""Backends of joblib whose workers share the threads of this machine."""
_is_training = threading.Lock()
LONG_MOTIONS = {
    "subsample": "evenly thinned",
    "crop": "cut to their middle",
    "start": "cut to their beginning",
}
"""What --long_motions does."""


def train_run(
    config: TrainConfig,
    sources: Mapping[str, str],
    make_plots: fit.PlotFactory | None = None,
    ranks: Ranks = ONE_PROCESS,
) -> Run:
    """Trains the requested folds that are not finished; logs a line for each and one for the run.

    sources: where each setting comes from, by its name; make_plots: see `fit.fit`; ranks: the
    processes that share each batch.
    """
    tracking.check_tracker(config.log)
    distributed.check_settings(config, ranks)
    config, sources = apply_weights_settings(config, sources)
    if config.augment.word_dropout and not text_tower.is_trained(config.text):
        raise ConfigError(
            "--word_dropout",
            "needs a text tower that trains",
            "add --unfreeze_text, or leave it out",
        )
    data, folds = ranks.first_alone(lambda: load_data(config, sources))
    fix = "give all processes one --data_dir and one --folds_dir, in a folder that all share"
    ranks.check_same(
        [data.fingerprint, folds.hash], config.data.data_dir, "processes see other data", fix
    )
    run, unfinished = ranks.broadcast(lambda: begin_run(config, sources, data, folds))
    if unfinished:
        if config.log == "tensorboard":
            logger.info(f"curves: tensorboard --logdir {config.out_dir}")
        if ranks.is_first:
            log_forecast(distributed.config_of_shard(config, ranks), data, len(unfinished))
        _train_folds(run, unfinished, data, folds, make_plots, ranks)
    if ranks.is_first and run.finished_folds():
        if config.checkpoint.selection != "last":
            logger.info(f"{run.name}: the epoch of each fold is {history.BEST_EPOCH_NOTE}")
        logger.info(local_score.out_of_fold_score([run], folds).summary(run.name))
    return run


def begin_run(
    config: TrainConfig, sources: Mapping[str, str], data: TrainingData, folds: Folds
) -> tuple[Run, list[int | None]]:
    """The run of these settings and its folds that are still to train; repairs what a run that goes
    on has lost."""
    requested = requested_folds(config, folds)
    run = resolve_run(config, sources, data, folds)
    logger.info(f"{run.name}: {config.variant} in {run.folder}")
    if (run.folder / "args.json").is_file():
        for fold in requested:
            resume.mend_fold(run, fold)
        if checkpoint := resume.resumed_checkpoint(config):
            resume.rewind(run, checkpoint)
        requested = list(dict.fromkeys([*requested, *resume.reopen(run)]))
    done = [fold for fold in requested if _is_finished(run, fold)]
    if done:
        logger.info(f"finished before: {', '.join(run.fold_dir(fold).name for fold in done)}")
    return run, [fold for fold in requested if fold not in done]


def log_forecast(config: TrainConfig, data: TrainingData, n_models: int) -> None:
    """Logs the rough time and memory of training so many models, and what to do where the memory is
    too small."""
    jobs = min(n_models, joblib.effective_n_jobs(config.fold_jobs))
    # where workers train, this process takes no memory of a GPU
    measure = measure_machine_apart if jobs > 1 else measure_machine
    machine, store = measure(config.machine.device), data.store
    texts = [caption for captions in data.training.captions for caption in captions]
    size = DataSize(
        motions=len(store.lengths),
        frames=float(store.lengths.clip(max=config.motion.max_frames).mean()),
        persons=store.persons,
        columns=store.features.shape[-1],
        captions=len(texts) / len(store.lengths),
        words=sum(len(text.split()) for text in texts) / len(texts),
    )
    logger.info(forecast.describe_forecast(config, size, machine, n_models))
    if problem := forecast.memory_problem(config, size, machine, jobs):
        logger.warning(f"warning: {problem}")


def _is_finished(run: Run, fold: int | None) -> bool:
    return run.has_full_model() if fold is None else fold in run.finished_folds()


def apply_weights_settings(
    config: TrainConfig, sources: Mapping[str, str]
) -> tuple[TrainConfig, dict[str, str]]:
    """The settings as a file of published weights decides them, and their sources; logs what the
    file decided.

    A preset's --text_activation is for its tower from scratch: other towers have their own.
    """
    config, sources, message = pretrained.apply_weights_file(config, sources)
    from_scratch = text_tower.trains_from_scratch(config.text) and not text_tower.is_custom(
        config.text
    )
    if sources.get("text_activation", "").startswith("preset") and not from_scratch:
        config = replace(config, text=replace(config.text, text_activation="auto"))
        sources |= {"text_activation": "default"}
    if message:
        logger.info(message)
    return config, sources


# ---- data and folds


def load_data(config: TrainConfig, sources: Mapping[str, str]) -> tuple[TrainingData, Folds]:
    """The features and folds, made where they are missing; logs which.

    FoldError where the folds that are there are not those that flags ask for.
    """
    data = dataset.load_training(config.data, config.machine.jobs, config.motion.features)
    _log_data(config, data)
    # duplicates, which belong in one fold, are recognised by canonical features alone
    is_canonical = data.store.config.kind == "canonical"
    canonical = data if is_canonical else dataset.load_training(config.data, config.machine.jobs)
    by_flag = sources.get("folds") == "flag"
    lists = choose_split_lists(config.data.data_dir, config.prefer_txt_split, by_flag)
    folds_dir = config.data.folds_dir
    folds, were_there = read_or_make_folds(
        canonical, folds_dir, config.folds, config.fold_seed, lists, config.prefer_txt_split
    )
    _check_fold_flags(config, sources, folds)
    many = "s" if folds.count > 1 else ""
    held_out = ""
    if lists and folds.count == 1:
        held_out = f" ({lists[1].name} is held out; --folds K makes folds instead)"
    origin = "read from" if were_there else "made in"
    logger.info(f"{folds.count} fold{many} {origin} {folds_dir / 'folds.csv'}{held_out}")
    return data, folds


def _log_data(config: TrainConfig, data: TrainingData) -> None:
    skipped = len(data.training.skipped)
    skipped_note = f", {skipped} left out (see `python solution/prepare.py`)" if skipped else ""
    packed = "as packed before" if data.cache_hit else "packed"
    logger.info(
        f"{len(data.training.ids)} motions{skipped_note}: features {packed} in {data.store.folder}"
    )
    if data.store.config.skeleton != SMPL.name or data.store.config.metres != 1:
        logger.info(f"bodies: {data_report.describe_bodies(data.store.config)}")
    if longer := int((data.store.lengths > config.motion.max_frames).sum()):
        change = LONG_MOTIONS[config.motion.long_motions]
        logger.info(
            f"{longer} motions longer than --max_frames {config.motion.max_frames} are {change}"
        )


def _check_fold_flags(config: TrainConfig, sources: Mapping[str, str], folds: Folds) -> None:
    """FoldError where --fold_seed or --folds asks for other folds than those that are there."""
    folds_dir = config.data.folds_dir
    if sources.get("fold_seed") == "flag" and folds.seed not in (None, config.fold_seed):
        command = (
            f"python solution/make_folds.py --folds {folds.count} --fold_seed {config.fold_seed}"
        )
        raise FoldError(
            folds_dir,
            f"folds of --fold_seed {folds.seed}",
            f"leave the flag out, or run `{command}`",
        )
    by_flag = sources.get("folds") == "flag"
    if by_flag and not config.prefer_txt_split and folds.count != config.folds:
        problem = f"{folds.count} folds, where --folds {config.folds} was asked for"
        command = f"python solution/make_folds.py --folds {config.folds}"
        raise FoldError(folds_dir, problem, f"leave the flag out, or run `{command}`")


def requested_folds(config: TrainConfig, folds: Folds) -> list[int | None]:
    """Which folds to train; None is the model of all motions. FoldError where there is no such
    fold."""
    if config.fold == "all":
        return list(range(folds.count))
    if config.fold == "full":
        return [None]
    if int(config.fold) >= folds.count:
        problem = f"there is no fold {config.fold}: folds are 0 to {folds.count - 1}"
        raise FoldError("--fold", problem, "give one of them, all or full")
    return [int(config.fold)]


# ---- captions and text tower


def make_tower_and_context(
    config: TrainConfig, data: TrainingData
) -> tuple[TrainContext, TextTower]:
    """What all folds share: data on the device, and the text tower. ConfigError where settings do
    not go together."""
    tower = registry.make_text_tower(config.text)
    if config.augment.word_dropout and not tower.trims_padding:
        raise ConfigError(
            "--word_dropout",
            f"{config.text.text_tower} does not say where a caption ends",
            "leave it out",
        )
    captions = [
        caption for motion_captions in data.training.captions for caption in motion_captions
    ]
    parts = part_texts.load_part_texts(config, data) if config.parts.use_gar else None
    if parts is not None:  # a query's part texts are looked up too
        described = [
            text for motion_parts in parts for text in motion_parts.values() if text is not None
        ]
        captions += described + part_texts.all_part_texts(captions)
    if config.augment.mirror:
        captions += caption_mirror.mirror_captions(captions).values()
    registry.check_text_tower(config.text, tower, captions)
    device, cache_dir = choose_device(config.machine.device), config.data.work_dir / "text"
    is_frozen = not text_tower.is_trained(config.text)
    bank = published = embed.make_caption_bank(captions, tower, is_frozen, cache_dir, device)
    if text_tower.is_fine_tuned(config.text) and 0 < config.loss.negative_threshold <= 1:
        published = embed.make_caption_bank(captions, tower, True, cache_dir, device)
    context = context_module.make_context(config, data, bank, parts, published)
    sample = context.motions.gather(torch.arange(min(2, len(data.store.lengths))))
    registry.check_motion_tower(config.motion, data.store.columns, sample, config.parts.use_gar)
    if (fraction := objective.excluded_negative_fraction(context, config)) > MAX_EXCLUDED_FRACTION:
        problem = (
            f"leaves {fraction:.0%} of the negatives out, so that little is left to learn from"
        )
        fix = "raise it; above 1 only equal captions are left out, and with 0 none"
        raise ConfigError(f"--negative_threshold {config.loss.negative_threshold:g}", problem, fix)
    return context, tower


# ---- folds, one after another or in parallel


def _train_folds(
    run: Run,
    unfinished: Sequence[int | None],
    data: TrainingData,
    folds: Folds,
    make_plots: fit.PlotFactory | None,
    ranks: Ranks,
) -> None:
    """Trains folds, one after another or with --fold_jobs processes."""
    jobs = min(len(unfinished), joblib.effective_n_jobs(run.config.fold_jobs))
    if jobs > 1:
        _fit_folds_parallel(run, unfinished, jobs, make_plots)
        return
    context, tower = _prepare_run(run, data, ranks)
    for fold in unfinished:
        on_epoch_end = None if progress.on_terminal() else _log_epoch_callback(run, fold)
        score = fit.fit(
            FoldContext(run, fold, data, folds, context, tower), on_epoch_end, make_plots
        )
        _report_fold(run, fold, score)


def _prepare_run(
    run: Run, data: TrainingData, ranks: Ranks = ONE_PROCESS
) -> tuple[TrainContext, TextTower]:
    """What all folds share, checked; the run's folder is made once all checks have passed."""
    config = run.config
    context, tower = ranks.first_alone(lambda: make_tower_and_context(config, data))
    context = replace(context, ranks=ranks)
    many = f", in {ranks.world_size} processes that share each batch" * (ranks.world_size > 1)
    logger.info(f"training on {describe_precision(context.device, context.dtype)}{many}")
    if tower.note:
        logger.info(tower.note)
    if config.loss.negative_threshold:
        fraction = objective.excluded_negative_fraction(context, config)
        reason = "a caption of that motion says the same"
        pairs = f"{fraction:.2%} of the pairs of a caption and another motion"
        logger.info(f"{pairs} are no negatives: {reason}")
    ranks.broadcast(lambda: _record_run(run, tower, ranks.world_size))
    return context, tower


def _record_run(run: Run, tower: TextTower, world_size: int) -> None:
    """Makes the run's folder; of a run that goes on, checks what it was made from."""
    if (run.folder / "args.json").is_file():
        recorded = open_run(run.folder, run.config.towers)
        provenance.check_inputs(recorded, tower, resumed=True)
        resume.record_world_size(run, world_size)
    else:
        inputs = provenance.input_digests(run.config, tower)
        create_run_dir(replace(run, inputs=inputs), world_size)


def _make_workers(config: TrainConfig, jobs: int) -> joblib.Parallel:
    """Processes for folds. ConfigError for a backend that joblib does not have, whose workers share
    one process, or whose workers cannot use a card."""
    backend, n_cards = _backend_of(config), count_cards(config.machine.device)
    if backend == "multiprocessing" and n_cards:
        problem = "multiprocessing forks this process, which CUDA does not survive"
        raise ConfigError("--joblib_backend", problem, "take loky, or --device cpu")
    if backend == "threading":
        problem = (
            "threads of one process share torch's random state, so that no run could be repeated"
        )
        raise ConfigError("--joblib_backend", problem, "take loky or multiprocessing")
    try:
        # by its name joblib 1.6 cannot begin dask; what is set around this call is taken as it is
        return joblib.Parallel(
            n_jobs=jobs, backend=None if backend == context_backend() else backend
        )
    except (ValueError, ImportError) as error:
        backends = ", ".join(sorted(set(joblib.parallel.BACKENDS) - {"threading"}))
        problem = f"joblib has no backend {backend!r} ready ({error})"
        raise ConfigError("--joblib_backend", problem, f"take one of {backends}") from error


def _backend_of(config: TrainConfig) -> str:
    """The backend for folds: that of --joblib_backend, or if that is the default, the one that
    `joblib.parallel_config` sets around the training."""
    is_default = config.joblib_backend == base.flag_defaults(TrainConfig)["joblib_backend"]
    return (context_backend() if is_default else None) or config.joblib_backend


def _fit_folds_parallel(
    run: Run,
    unfinished: Sequence[int | None],
    jobs: int,
    make_plots: fit.PlotFactory | None,
) -> None:
    """Trains folds in processes that share the threads and the cards of this machine. An error in
    one of them is raised here.

    The checks are made in one of them too: this process never computes on a card, so it takes no
    memory there.
    """
    workers = _make_workers(run.config, jobs)
    threads_per_fold: list[int | None] = [None] * len(unfinished)  # on other machines: their own
    if is_local := _backend_of(run.config) in LOCAL_BACKENDS:
        threads_per_fold = [*share_threads(len(unfinished), jobs, torch.get_num_threads())]
    n_cards = min(jobs, count_cards(run.config.machine.device))
    many = "s" if threads_per_fold[0] != 1 else ""
    threads = f", {threads_per_fold[0]} thread{many} each" if is_local else ""
    cards = f", on {n_cards} GPUs" if n_cards > 1 else ""
    logger.info(f"{jobs} folds side by side{threads}{cards}")
    try:
        workers([joblib.delayed(_prepare_run_in_worker)(run)])
        workers(
            joblib.delayed(_fit_fold_worker)(run, fold, threads, make_plots)
            for fold, threads in zip(unfinished, threads_per_fold, strict=True)
        )
    except TerminatedWorkerError as error:
        problem = "a process that trained a fold was killed, perhaps for want of memory"
        raise RunError(run.folder, problem, "lower --fold_jobs") from error


def _prepare_run_in_worker(run: Run) -> None:
    """Checks a run and makes its folder in a process of its own; what is slow to make is cached on
    disk."""
    begin_worker()
    _prepare_run(run, dataset.load_training(run.config.data, 1, run.config.motion.features))
    torch.cuda.empty_cache()  # the next task of this process may use another card


def _fit_fold_worker(
    run: Run, fold: int | None, threads: int | None, make_plots: fit.PlotFactory | None
) -> None:
    """Trains one fold in a process of its own.

    It logs a line per epoch, since the bars of several processes would overwrite each other.
    """
    begin_worker(threads)
    if not _is_training.acquire(blocking=False):
        problem = "this process trains another fold, whose random state it would share"
        raise ConfigError("--joblib_backend", problem, "give each worker one thread")
    try:
        _fit_fold(run, fold, make_plots)
    finally:
        _is_training.release()


def _fit_fold(run: Run, fold: int | None, make_plots: fit.PlotFactory | None) -> None:
    data = dataset.load_training(run.config.data, jobs=1, kind=run.config.motion.features)
    folds = read_folds(data, run.config.data.folds_dir)
    context, tower = make_tower_and_context(run.config, data)
    fold_context = FoldContext(run, fold, data, folds, context, tower)
    score = fit.fit(fold_context, _log_epoch_callback(run, fold), make_plots)
    _report_fold(run, fold, score)


def _log_epoch_callback(run: Run, fold: int | None) -> history.EpochCallback:
    """Logs a line after each epoch, where no bar can be drawn."""
    return lambda stats: logger.info(f"{run.fold_dir(fold).name} {history.describe_epoch(stats)}")


def _report_fold(run: Run, fold: int | None, score: Score | None) -> None:
    result = f"score {score} ({score.motions} motions)" if score else "trained on all motions"
    logger.info(f"{run.fold_dir(fold)}: {result}")
