"""A run from beginning to end: data, folds, captions, then every fold that is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from motret import (
    dataset,
    fit,
    folds,
    history,
    motion,
    objective,
    part_texts,
    progress,
    provenance,
    published,
    rank,
    resume,
    runs,
    sides,
    survey,
    text,
    workplace,
)
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.faults import FoldFault, RunFault, SettingFault
from motret.folds import Folds
from motret.metrics import Score
from motret.runs import Run
from motret.skeleton import SMPL
from motret.workplace import Workplace

MOST_EXCLUDED = 1 / 3
"""A larger share of excluded negatives stops a run: such a threshold does not tell captions apart."""


def load(settings: TrainSettings, sources: Mapping[str, str]) -> tuple[TrainingData, Folds]:
    """The packed data and its folds, made where they are missing; says which."""
    data = dataset.load_training(settings.data, settings.machine.jobs, settings.motion.features)
    left_out = f", {len(data.training.skipped)} left out (see `python solution/prepare.py`)" if data.training.skipped else ""
    print(f"{len(data.training.ids)} motions{left_out}: features {'as packed before' if data.reused else 'packed'} in {data.store.folder}")
    if data.store.settings.skeleton != SMPL.name or data.store.settings.metres != 1:
        print(f"bodies: {survey.describe_bodies(data.store.settings)}")
    # what belongs together is told by canonical features, whatever the tower sees
    seen = data if data.store.settings.kind == "canonical" else dataset.load_training(settings.data, settings.machine.jobs)
    by_flag = sources.get("folds") == "flag"
    lists = folds.choose_lists(settings.data.data_dir, settings.prefer_txt_split, by_flag)
    place = settings.data.folds_dir
    found, there = folds.read_or_make(seen, place, settings.folds, settings.fold_seed, lists, settings.prefer_txt_split)
    if sources.get("fold_seed") == "flag" and found.seed not in (None, settings.fold_seed):
        command = f"python solution/make_folds.py --folds {found.count} --fold_seed {settings.fold_seed}"
        raise FoldFault(place, f"folds of --fold_seed {found.seed}", f"leave the flag out, or run `{command}`")
    if by_flag and not settings.prefer_txt_split and found.count != settings.folds:
        wrong = f"{found.count} folds, where --folds {settings.folds} was asked for"
        command = f"python solution/make_folds.py --folds {settings.folds}"
        raise FoldFault(settings.data.folds_dir, wrong, f"leave the flag out, or run `{command}`")
    if longer := int((data.store.lengths > settings.motion.max_frames).sum()):
        how = {"subsample": "evenly thinned", "crop": "cut to their middle", "start": "cut to their beginning"}[
            settings.motion.long_motions
        ]
        print(f"{longer} motions longer than --max_frames {settings.motion.max_frames} are {how}")
    many = "s" if found.count > 1 else ""
    held_out = f" ({lists[1].name} is held out; --folds K makes folds instead)" if lists and found.count == 1 else ""
    print(f"{found.count} fold{many} {'read from' if there else 'made in'} {place / 'folds.csv'}{held_out}")
    return data, found


def settle(settings: TrainSettings, sources: Mapping[str, str]) -> tuple[TrainSettings, dict[str, str]]:
    """The settings with what a file of published weights decides, and their sources; says what was taken.

    A preset's --text_activation is for its tower from scratch: pretrained weights have their own.
    """
    settings, sources, line = published.settle(settings, sources)
    if sources.get("text_activation", "").startswith("preset") and not text.from_scratch(settings.text):
        settings = replace(settings, text=replace(settings.text, text_activation="auto"))
        sources |= {"text_activation": "default"}
    if line:
        print(line)
    return settings, sources


def wanted_folds(settings: TrainSettings, found: Folds) -> list[int | None]:
    """Which folds to train; None is the model of all motions."""
    if settings.fold == "all":
        return list(range(found.count))
    if settings.fold == "full":
        return [None]
    if int(settings.fold) >= found.count:
        raise FoldFault("--fold", f"there is no fold {settings.fold}: folds are 0 to {found.count - 1}", "give one of them, all or full")
    return [int(settings.fold)]


def set_up(settings: TrainSettings, data: TrainingData) -> tuple[Workplace, text.ClipTower | text.HfTower]:
    """What all folds share: motions and captions where they are computed on, and the text tower."""
    tower = text.make_tower(settings.text)
    if settings.augment.word_dropout and not getattr(tower, "cuts", True):
        raise SettingFault("--word_dropout", f"{settings.text.text_tower} does not say where a caption ends", "leave it out")
    captions = [caption for own in data.training.captions for caption in own]
    parts = part_texts.load(settings, data) if settings.parts.use_gar else None
    if parts is not None:  # what captions say of parts is asked for at test
        captions += [said for own in parts for said in own.values() if said is not None] + part_texts.listed(captions)
    if settings.augment.mirror:
        captions += sides.mirrors(captions).values()
    device = workplace.choose_device(settings.machine.device)
    bank = text.make_bank(captions, tower, not text.trains(settings.text), settings.data.work_dir / "text", device)
    published = bank
    if text.fine_tunes(settings.text) and 0 < settings.loss.negative_threshold <= 1:
        published = text.make_bank(captions, tower, True, settings.data.work_dir / "text", device)
    place = workplace.set_up(settings, data, bank, parts, published)
    some = place.motions.gather(torch.arange(min(2, len(data.store.lengths)), device=device))
    motion.try_out(settings.motion, data.store.columns, some, settings.parts.use_gar)
    if (share := objective.excluded_share(place, settings)) > MOST_EXCLUDED:
        wrong = f"leaves {share:.0%} of the negatives out, so that little is left to learn from"
        fix = "raise it; above 1 only equal captions are left out, and with 0 none"
        raise SettingFault(f"--negative_threshold {settings.loss.negative_threshold:g}", wrong, fix)
    return place, tower


def train(settings: TrainSettings, sources: Mapping[str, str]) -> Run:
    """Trains the folds asked for that are not finished; prints a line for each and one for the run."""
    settings, sources = settle(settings, sources)
    if settings.augment.word_dropout and not text.trains(settings.text):
        raise SettingFault("--word_dropout", "needs a text tower that trains", "add --unfreeze_text, or leave it out")
    data, found = load(settings, sources)
    wanted = wanted_folds(settings, found)
    run = runs.locate(settings, sources, data, found)
    print(f"{run.name}: {settings.variant} in {run.folder}")
    if (run.folder / "args.json").is_file():
        if checkpoint := resume.checkpoint_of(settings):
            resume.rewind(run, checkpoint)
        wanted = list(dict.fromkeys([*wanted, *resume.reopen(run)]))
    done = [fold for fold in wanted if (run.full() if fold is None else fold in run.finished())]
    if done:
        print(f"finished before: {', '.join(run.part(fold).name for fold in done)}")
    if left := [fold for fold in wanted if fold not in done]:
        place, tower = set_up(settings, data)
        if tower.note:
            print(tower.note)
        if settings.loss.negative_threshold:
            share = objective.excluded_share(place, settings)
            print(f"{share:.2%} of the pairs of a caption and another motion are no negatives: a caption of that motion says the same")
        jobs = min(len(left), joblib.effective_n_jobs(settings.fold_jobs))
        workers = _workers(settings, jobs) if jobs > 1 else None
        if (run.folder / "args.json").is_file():
            provenance.check(runs.open_run(run.folder), tower, resumed=True)
        else:
            runs.begin(replace(run, inputs=provenance.of(settings, tower)))
        if workers:
            del place  # each process has its own; what was slow to make is kept on disk
            _side_by_side(run, left, workers, jobs)
        else:
            for fold in left:
                _tell(run, fold, fit.fit(run, data, found, place, tower, fold, None if progress.on_terminal() else _epoch_line(run, fold)))
    if run.finished():
        if settings.fit.chosen_by != "last":
            print(f"{run.name}: the epoch of each fold is {history.CHOSEN_THERE}")
        print(rank.out_of_fold_score([run], found).line(run.name))
    return run


def _workers(settings: TrainSettings, jobs: int) -> joblib.Parallel:
    """Processes for folds. SettingFault for a backend that joblib does not know, or that shares a process."""
    name = settings.joblib_backend
    if name == "threading":
        wrong = "threads of one process share torch's random state, so that no run could be repeated"
        raise SettingFault("--joblib_backend", wrong, "take loky or multiprocessing")
    try:
        return joblib.Parallel(n_jobs=jobs, backend=name)
    except (ValueError, ImportError) as unknown:
        known = ", ".join(sorted(set(joblib.parallel.BACKENDS) - {"threading"}))
        raise SettingFault("--joblib_backend", f"joblib has no backend {name!r} ready ({unknown})", f"take one of {known}") from unknown


def _side_by_side(run: Run, left: Sequence[int | None], workers: joblib.Parallel, jobs: int) -> None:
    """Trains folds in processes that share the threads of this one. What is wrong in one of them is raised here."""
    shares = share_threads(len(left), jobs, torch.get_num_threads())
    print(f"{jobs} folds side by side, {shares[0]} thread{'s' if shares[0] > 1 else ''} each", flush=True)
    try:
        workers(joblib.delayed(_fit_alone)(run, fold, threads) for fold, threads in zip(left, shares, strict=True))
    except TerminatedWorkerError as killed:
        raise RunFault(run.folder, "a process that trained a fold was killed, perhaps for want of memory", "lower --fold_jobs") from killed


def share_threads(folds: int, jobs: int, threads: int) -> list[int]:
    """Threads for each of some folds that are trained `jobs` at a time; the last ones share what there is among fewer."""
    beside = [min(jobs, folds - start) for start in range(0, folds, jobs) for _ in range(min(jobs, folds - start))]
    return [max(1, threads // others) for others in beside]


def _fit_alone(run: Run, fold: int | None, threads: int) -> None:
    """Trains one fold in a process of its own; a line for each epoch, since bars of several processes would overwrite each other."""
    torch.set_num_threads(threads)
    data = dataset.load_training(run.settings.data, jobs=1, kind=run.settings.motion.features)
    found = folds.read(data, run.settings.data.folds_dir)
    place, tower = set_up(run.settings, data)
    score = fit.fit(run, data, found, place, tower, fold, _epoch_line(run, fold))
    _tell(run, fold, score)


def _epoch_line(run: Run, fold: int | None) -> history.Watch:
    """Prints a line after each epoch, where no bar can be drawn."""
    return lambda line: print(f"{run.part(fold).name} {history.describe(line)}", flush=True)


def _tell(run: Run, fold: int | None, score: Score | None) -> None:
    told = f"score {score} ({score.motions} motions)" if score else "trained on all motions"
    print(f"{run.part(fold)}: {told}", flush=True)
