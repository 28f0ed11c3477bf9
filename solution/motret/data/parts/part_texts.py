"""The part texts of the training motions: from the GAR file, from the motions themselves, or from their captions."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from motret.config.training import TrainConfig
from motret.data import caption_mirror
from motret.data.dataset import TrainingData
from motret.data.parts import caption_parts, describer
from motret.errors import DataError
from motret.formats import gar
from motret.formats.gar import PartDescriptions
from motret.skeleton import OTHER_SIDE, PARTS
from motret.utils import files


def load_part_texts(config: TrainConfig, data: TrainingData) -> list[PartDescriptions]:
    """What each part does in each training motion, in their order; says where it comes from and how much there is."""
    source, given = _part_text_source(config)
    if source == "gar":
        found, origin = parts_of_files(given, data.training.ids, config.data.id_width), " and ".join(map(str, given))
    elif source == "motion":
        seen = data.store.config
        kept = config.data.work_dir / f"parts-{files.content_hash(data.fingerprint, seen.up, describer.describer_version(seen.fps))}.json"
        found, origin = _parts_of_motions(kept, config, data), f"the motions ({kept})"
    else:
        found, origin = [parts_of_captions(captions) for captions in data.training.captions], "the captions"
    known = sum(text is not None for parts in found for text in parts.values())
    print(f"part texts from {origin}: {known} of {len(found) * len(PARTS)} parts are described")
    if not known:
        raise DataError(given[0], "no part of any training motion is described", "mend its ids, or give --part_text motion")
    return found


def part_texts_digest(config: TrainConfig) -> str | None:
    """Source and content hash of the part texts that a run learns from, as far as its data do not tell; None where it learns from none.

    Of the files the texts alone count: their captions, order of keys and white space say nothing of parts.
    """
    if not config.parts.use_gar:
        return None
    source, given = _part_text_source(config)
    if source == "caption":
        return source
    texts = (
        [gar.read_gar(file, config.data.id_width).parts for file in given]
        if source == "gar"
        else describer.describer_version(config.data.fps)
    )
    return f"{source} {files.content_hash(texts)}"


def _part_text_source(config: TrainConfig) -> tuple[str, list[Path]]:
    """Where part texts come from, and the GAR files: those there are, else the one that is missing."""
    given = gar.find_gar_files(config.data.data_dir) or [config.data.data_dir / "texts" / gar.GAR_FILES[0]]
    source = config.parts.part_text
    return ("gar" if given[0].is_file() else "motion") if source == "auto" else source, given


@functools.cache
def parts_of_caption(caption: str) -> PartDescriptions:
    """What a caption says of each part, read once."""
    return caption_parts.parts_from_caption(caption)


def all_part_texts(captions: Iterable[str]) -> list[str]:
    """All that captions say of parts."""
    return [text for caption in captions for text in parts_of_caption(caption).values() if text is not None]


def parts_of_captions(captions: Sequence[str]) -> PartDescriptions:
    """What captions say of each part: the first of them that names it."""
    said = [parts_of_caption(caption) for caption in captions]
    return {part: next((parts[part] for parts in said if parts[part] is not None), None) for part in PARTS}


def mirror_parts(parts: PartDescriptions) -> PartDescriptions | None:
    """What each part does in the mirror: what was said of the one on the other side, left for right.

    None where one of the texts cannot be mirrored.
    """
    said = {part: parts[OTHER_SIDE[part]] for part in PARTS}
    mirrored = {part: None if text is None else caption_mirror.mirror_caption(text) for part, text in said.items()}
    return None if any(mirrored[part] is None for part, text in said.items() if text is not None) else mirrored


def parts_of_files(given: Sequence[Path], ids: Sequence[str], id_width: int | None) -> list[PartDescriptions]:
    """The parts of each id in GAR files; of an id that is in several of them the first counts."""
    width = id_width or max((len(name) for name in ids if name.isdecimal()), default=None)
    known: dict[str, PartDescriptions] = {}
    for file in given:
        read = gar.read_gar(file, width)
        for note in read.notes:
            print(f"{file}: {note}")
        known = read.parts | known
    return [known.get(name, dict.fromkeys(PARTS)) for name in ids]


def _parts_of_motions(kept: Path, config: TrainConfig, data: TrainingData) -> list[PartDescriptions]:
    if not kept.is_file():
        gar.write_gar(kept, describer.describe_training(data.training, data.store.config, config.machine.jobs))
    return parts_of_files([kept], data.training.ids, config.data.id_width)
