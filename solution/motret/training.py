"""A run from beginning to end: data, folds, captions, then every fold that is asked for."""

from collections.abc import Mapping

from motret import dataset, fit, folds, part_texts, rank, runs, sides, text, workplace
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.faults import FoldFault, SettingFault
from motret.folds import Folds
from motret.runs import Run


def load(settings: TrainSettings, sources: Mapping[str, str]) -> tuple[TrainingData, Folds]:
    """The packed data and its folds, made where they are missing; says which."""
    data = dataset.load_training(settings.data, settings.machine.jobs, settings.motion.features)
    left_out = f", {len(data.training.skipped)} left out (see `python solution/prepare.py`)" if data.training.skipped else ""
    print(f"{len(data.training.ids)} motions{left_out}: features {'as packed before' if data.reused else 'packed'} in {data.store.folder}")
    # what belongs together is told by canonical features, whatever the tower sees
    seen = data if data.store.settings.kind == "canonical" else dataset.load_training(settings.data, settings.machine.jobs)
    found, there = folds.read_or_make(seen, settings.data.folds_dir, settings.folds, settings.machine.seed, settings.prefer_txt_split)
    if sources.get("folds") == "flag" and not settings.prefer_txt_split and found.count != settings.folds:
        wrong = f"{found.count} folds, where --folds {settings.folds} was asked for"
        command = f"python solution/make_folds.py --folds {settings.folds}"
        raise FoldFault(settings.data.folds_dir, wrong, f"leave the flag out, or run `{command}`")
    if longer := int((data.store.lengths > settings.motion.max_frames).sum()):
        how = {"subsample": "evenly thinned", "crop": "cut to their middle", "start": "cut to their beginning"}[
            settings.motion.long_motions
        ]
        print(f"{longer} motions longer than --max_frames {settings.motion.max_frames} are {how}")
    many = "s" if found.count > 1 else ""
    print(f"{found.count} fold{many} {'read from' if there else 'made in'} {settings.data.folds_dir / 'folds.csv'}")
    return data, found


def wanted_folds(settings: TrainSettings, found: Folds) -> list[int | None]:
    """Which folds to train; None is the model of all motions."""
    if settings.fold == "all":
        return list(range(found.count))
    if settings.fold == "full":
        return [None]
    if int(settings.fold) >= found.count:
        raise FoldFault("--fold", f"there is no fold {settings.fold}: folds are 0 to {found.count - 1}", "give one of them, all or full")
    return [int(settings.fold)]


def train(settings: TrainSettings, sources: Mapping[str, str]) -> Run:
    """Trains the folds asked for that are not finished; prints a line for each and one for the run."""
    if settings.augment.word_dropout and not text.trains(settings.text):
        raise SettingFault("--word_dropout", "needs a text tower that trains", "add --unfreeze_text, or leave it out")
    data, found = load(settings, sources)
    wanted = wanted_folds(settings, found)
    run = runs.locate(settings, sources, data, found)
    print(f"{run.name}: {settings.variant} in {run.folder}")
    done = [fold for fold in wanted if (run.full() if fold is None else fold in run.finished())]
    if done:
        print(f"finished before: {', '.join(run.part(fold).name for fold in done)}")
    if left := [fold for fold in wanted if fold not in done]:
        tower = text.make_tower(settings.text)
        if settings.augment.word_dropout and not getattr(tower, "cuts", True):
            raise SettingFault("--word_dropout", f"{settings.text.text_tower} does not say where a caption ends", "leave it out")
        captions = [caption for own in data.training.captions for caption in own]
        parts = part_texts.load(settings, data) if settings.parts.use_gar else None
        if parts is not None:  # what captions say of parts is asked for at test
            captions += [said for own in parts for said in own.values() if said is not None] + part_texts.listed(captions)
        if settings.augment.mirror:
            captions += list(map(sides.mirror, captions))
        device = workplace.choose_device(settings.machine.device)
        bank = text.make_bank(captions, tower, not text.trains(settings.text), settings.data.work_dir / "text", device)
        published = bank
        if text.fine_tunes(settings.text) and 0 < settings.loss.negative_threshold <= 1:
            published = text.make_bank(captions, tower, True, settings.data.work_dir / "text", device)
        place = workplace.set_up(settings, data, bank, parts, published)
        runs.begin(run)
        for fold in left:
            score = fit.fit(run, data, found, place, tower, fold)
            print(f"{run.part(fold)}: " + (f"score {score} ({score.motions} motions)" if score else "trained on all motions"))
    if run.finished():
        print(rank.out_of_fold_score([run], found).line(run.name))
    return run
