"""The part texts of the training motions: from the GAR files, from the motions themselves, or from
their captions."""

import functools
import logging
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
from motret.utils import files, reading

logger = logging.getLogger(__name__)


def load_part_texts(config: TrainConfig, data: TrainingData) -> list[PartDescriptions]:
    """What each part does in each training motion, in their order; logs where it comes from and how
    much there is."""
    source, gar_files = _part_text_source(config)
    if source == "gar":
        parts = parts_of_files(gar_files, data.training.ids, config.data.id_width)
        origin = " and ".join(map(str, gar_files))
    elif source == "motion":
        path = _described_file(config, data)
        parts, origin = _parts_of_motions(path, config, data), f"the motions ({path})"
    else:
        parts = [parts_of_captions(captions) for captions in data.training.captions]
        origin = "the captions"
    count = sum(text is not None for texts in parts for text in texts.values())
    total = len(parts) * len(PARTS)
    logger.info(f"part texts from {origin}: {count} of {total} parts are described")
    if not count:
        fix = "correct its ids, or give --part_text motion"
        raise DataError(gar_files[0], "no part of any training motion is described", fix)
    return parts


def part_texts_digest(config: TrainConfig) -> str | None:
    """Source and content hash of the part texts that a run trains on, as far as its data do not
    determine them; None without such.

    Of files the part texts alone count, not their captions, order of keys or white space.
    """
    if not config.parts.use_gar:
        return None
    source, gar_files = _part_text_source(config)
    if source == "caption":
        return source
    content: object = describer.describer_version(config.data.fps)
    if source == "gar":
        content = [gar.read_gar(file, config.data.id_width).parts for file in gar_files]
    return f"{source} {files.content_hash(content)}"


def _part_text_source(config: TrainConfig) -> tuple[str, list[Path]]:
    """Where part texts come from, and the GAR files: the existing ones, else the one that is
    missing."""
    data_dir, source = config.data.data_dir, config.parts.part_text
    gar_files = gar.find_gar_files(data_dir) or [data_dir / "texts" / gar.GAR_FILES[0]]
    if source == "auto":
        source = "gar" if reading.is_file(gar_files[0]) else "motion"
    return source, gar_files


@functools.cache
def parts_of_caption(caption: str) -> PartDescriptions:
    """What a caption says of each part, parsed once."""
    return caption_parts.parts_from_caption(caption)


def all_part_texts(captions: Iterable[str]) -> list[str]:
    """All that captions say of parts."""
    texts = [text for caption in captions for text in parts_of_caption(caption).values()]
    return [text for text in texts if text is not None]


def parts_of_captions(captions: Sequence[str]) -> PartDescriptions:
    """What captions say of each part: the first of them that names it."""
    parsed = [parts_of_caption(caption) for caption in captions]
    return {
        part: next((parts[part] for parts in parsed if parts[part] is not None), None)
        for part in PARTS
    }


def mirror_parts(parts: PartDescriptions) -> PartDescriptions | None:
    """What each part does in the mirror: the mirrored text of the part on the other side.

    None where one of the texts cannot be mirrored.
    """
    mirrored: PartDescriptions = {}
    for part in PARTS:
        text = parts[OTHER_SIDE[part]]
        mirrored[part] = None if text is None else caption_mirror.mirror_caption(text)
        if text is not None and mirrored[part] is None:
            return None
    return mirrored


def parts_of_files(
    gar_files: Sequence[Path], ids: Sequence[str], id_width: int | None
) -> list[PartDescriptions]:
    """The parts of each id in GAR files; of an id that is in several of them the first counts."""
    width = id_width or max((len(name) for name in ids if name.isdecimal()), default=None)
    parts: dict[str, PartDescriptions] = {}
    for file in gar_files:
        content = gar.read_gar(file, width)
        for note in content.notes:
            logger.info(f"{file}: {note}")
        parts = content.parts | parts
    return [parts.get(name, dict.fromkeys(PARTS)) for name in ids]


def _described_file(config: TrainConfig, data: TrainingData) -> Path:
    """Where the part texts that are derived from these motions are stored."""
    features = data.store.config
    version = describer.describer_version(features.fps)
    key = files.content_hash(data.fingerprint, features.up, version)
    return config.data.work_dir / f"parts-{key}.json"


def _parts_of_motions(
    path: Path, config: TrainConfig, data: TrainingData
) -> list[PartDescriptions]:
    """The part texts derived from the motions, stored in `path`."""
    if reading.exists(path):
        try:
            return parts_of_files([path], data.training.ids, config.data.id_width)
        except DataError as error:
            logger.warning(f"warning: {path}: {error.problem}: the parts are described again")
    jobs = config.machine.jobs
    gar.write_gar(path, describer.describe_training(data.training, data.store.config, jobs))
    return parts_of_files([path], data.training.ids, config.data.id_width)
