"""The part texts of the training motions: from the GAR file, from the motions themselves, or from their captions."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from motret import describe, files, gar, sides
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.faults import DataFault
from motret.gar import Parts
from motret.skeleton import OTHER_SIDE, PARTS


def load(settings: TrainSettings, data: TrainingData) -> list[Parts]:
    """What each part does in each training motion, in their order; says where it comes from and how much there is."""
    source, given = _source(settings)
    if source == "gar":
        found, origin = of_files(given, data.training.ids, settings.data.id_width), " and ".join(map(str, given))
    elif source == "motion":
        seen = data.store.settings
        kept = settings.data.work_dir / f"parts-{files.digest(data.fingerprint, seen.up, describe.version(seen.fps))}.json"
        found, origin = _of_motions(kept, settings, data), f"the motions ({kept})"
    else:
        found, origin = [from_captions(captions) for captions in data.training.captions], "the captions"
    known = sum(text is not None for parts in found for text in parts.values())
    print(f"part texts from {origin}: {known} of {len(found) * len(PARTS)} parts are described")
    if not known:
        raise DataFault(given[0], "no part of any training motion is described", "mend its ids, or give --part_text motion")
    return found


def digest(settings: TrainSettings) -> str | None:
    """Source and content hash of the part texts that a run learns from, as far as its data do not tell; None where it learns from none.

    Of the files the texts alone count: their captions, order of keys and white space say nothing of parts.
    """
    if not settings.parts.use_gar:
        return None
    source, given = _source(settings)
    if source == "caption":
        return source
    texts = [gar.read_gar(file, settings.data.id_width).parts for file in given] if source == "gar" else describe.version(settings.data.fps)
    return f"{source} {files.digest(texts)}"


def _source(settings: TrainSettings) -> tuple[str, list[Path]]:
    """Where part texts come from, and the GAR files: those there are, else the one that is missing."""
    given = gar.files(settings.data.data_dir) or [settings.data.data_dir / "texts" / gar.FILES[0]]
    source = settings.parts.part_text
    return ("gar" if given[0].is_file() else "motion") if source == "auto" else source, given


@functools.cache
def of_caption(caption: str) -> Parts:
    """What a caption says of each part, read once."""
    return gar.parts_from_caption(caption)


def listed(captions: Iterable[str]) -> list[str]:
    """All that captions say of parts."""
    return [text for caption in captions for text in of_caption(caption).values() if text is not None]


def from_captions(captions: Sequence[str]) -> Parts:
    """What captions say of each part: the first of them that names it."""
    said = [of_caption(caption) for caption in captions]
    return {part: next((parts[part] for parts in said if parts[part] is not None), None) for part in PARTS}


def mirror(parts: Parts) -> Parts | None:
    """What each part does in the mirror: what was said of the one on the other side, left for right.

    None where one of the texts cannot be mirrored.
    """
    said = {part: parts[OTHER_SIDE[part]] for part in PARTS}
    mirrored = {part: None if text is None else sides.mirror(text) for part, text in said.items()}
    return None if any(mirrored[part] is None for part, text in said.items() if text is not None) else mirrored


def of_files(given: Sequence[Path], ids: Sequence[str], id_width: int | None) -> list[Parts]:
    """The parts of each id in GAR files; of an id that is in several of them the first counts."""
    width = id_width or max((len(name) for name in ids if name.isdecimal()), default=None)
    known: dict[str, Parts] = {}
    for file in given:
        read = gar.read_gar(file, width)
        for note in read.notes:
            print(f"{file}: {note}")
        known = read.parts | known
    return [known.get(name, dict.fromkeys(PARTS)) for name in ids]


def _of_motions(kept: Path, settings: TrainSettings, data: TrainingData) -> list[Parts]:
    if not kept.is_file():
        gar.write_gar(kept, describe.describe_training(data.training, data.store.settings, settings.machine.jobs))
    return of_files([kept], data.training.ids, settings.data.id_width)
