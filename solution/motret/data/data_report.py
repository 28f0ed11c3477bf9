"""The data report: what is there, what is unusual, what was left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motret.data import features
from motret.data.captions import normalize, words
from motret.data.dataset import TestData, TrainingData, check_persons
from motret.data.duplicates import DuplicatePair, near_duplicates
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.formats import split_joints
from motret.formats.challenge import SkippedFile

MAX_LISTED = 5
"""Files left out that the lines name; the facts have all of them."""


@dataclass(frozen=True)
class DataReport:
    """Lines for people, and the same facts as plain values."""

    lines: tuple[str, ...]
    facts: dict[str, Any]


def make_data_report(data: TrainingData, test: TestData | None) -> DataReport:
    """Counts, lengths, captions, duplicates (also of test motions among the training motions) and
    files left out."""
    training, store = data.training, data.store
    if test is not None:
        check_persons(test.store, store.persons, test.queries[0].paths[0].parent)
    reports = [
        _report_motions(data),
        _report_captions(training.captions),
        _report_duplicates(store),
        _report_groups(training.groups),
        _report_unit(store),
    ]
    if test is not None:
        reports.append(_report_test(store, test))
    if split_joints.has_split_joints(training.root):
        reports.append(_report_statistics(data))
    reports.append(_report_skipped(training.skipped))
    lines = tuple(line for report in reports for line in report.lines)
    return DataReport(
        lines, {name: fact for report in reports for name, fact in report.facts.items()}
    )


def describe_bodies(config: FeatureConfig, spine: float | None = None) -> str:
    """The joints of the bodies and the unit of their positions; spine: median metres between pelvis
    and head."""
    body = config.body
    size = "" if spine is None else f" (pelvis to head {spine / config.metres:.4g})"
    unit = features.UNITS[config.metres]
    text = f"{len(body.joints)} joints ({body.name}), in {unit} by their size{size}"
    if dict(body.parts) != dict(body.limbs):
        counts = ", ".join(f"{part} {len(joints)}" for part, joints in body.parts.items())
        text += f"; joints of the part streams: {counts}"
    return text + ("; stored in the mirror by their feet, turned back" if config.reflected else "")


def exact_duplicates(store: FeatureStore) -> list[tuple[int, int]]:
    """Pairs of motions whose files have the same bytes: the first with such bytes, and each later
    one."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, index), index) for index, digest in enumerate(store.digests)]
    return [pair for pair in pairs if pair[0] != pair[1]]


# ---- sections


def _report_motions(data: TrainingData) -> DataReport:
    store = data.store
    hours = float(store.lengths.sum() / store.config.fps / 3600)
    quantiles = {"shortest": 0, "median": 0.5, "longest": 1}
    frames = {name: int(np.quantile(store.lengths, q)) for name, q in quantiles.items()}
    spine = _spine_length(store)
    facts = {
        "motions": len(store.ids),
        "persons": store.persons,
        "up": store.config.up,
        "hours": hours,
        "frames": frames,
        "pelvis_to_head": spine,
    }
    no_rotations = "" if data.training.rotations else "; positions alone, no joint rotations"
    lines = (
        f"motions     {len(store.ids)} of {store.persons} person(s), {hours:.1f} h{no_rotations}",
        f"axes        {store.config.up} is up; {store.config.fps:g} frames a second",
        f"bodies      {describe_bodies(store.config, spine)}",
        "frames      " + ", ".join(f"{count} {name}" for name, count in frames.items()),
    )
    return DataReport(lines, facts)


def _report_captions(captions: Sequence[Sequence[str]]) -> DataReport:
    motions_by_caption = Counter(
        caption for texts in captions for caption in set(map(normalize, texts))
    )
    sizes = [len(words(caption)) for texts in captions for caption in texts]
    vocabulary = {word for caption in motions_by_caption for word in caption.split()}
    shared = sum(count > 1 for count in motions_by_caption.values())
    mean_words = float(np.mean(sizes))
    line = (
        f"captions    {len(sizes)}, {len(motions_by_caption)} distinct, {shared} of several motions"
        f"; {mean_words:.1f} words on average, {len(vocabulary)} different words"
    )
    facts = {
        "captions": len(sizes),
        "distinct_captions": len(motions_by_caption),
        "captions_of_several_motions": shared,
        "words_per_caption": mean_words,
        "vocabulary": len(vocabulary),
    }
    return DataReport((line,), facts)


def _report_duplicates(store: FeatureStore) -> DataReport:
    exact, near = exact_duplicates(store), near_duplicates(store)
    mirrored = near_duplicates(store, mirrored=True)
    near_ids, mirrored_ids = _named(near, store, store), _named(mirrored, store, store)
    lines = (
        f"duplicates  {len(exact)} pairs equal, {len(near)} pairs nearly equal{_preview(near_ids)}",
        f"            {len(mirrored)} pairs nearly equal in the mirror{_preview(mirrored_ids)}",
    )
    facts = {
        "exact_duplicates": [[store.ids[a], store.ids[b]] for a, b in exact],
        "near_duplicates": near_ids,
        "mirrored_duplicates": mirrored_ids,
    }
    return DataReport(lines, facts)


def _report_groups(groups: dict[str, str] | None) -> DataReport:
    count = None if groups is None else len(set(groups.values()))
    text = f"{count} in groups.csv" if groups else "none given (made from captions and duplicates)"
    return DataReport((f"groups      {text}",), {"groups": count})


def _report_unit(store: FeatureStore) -> DataReport:
    low, high = features.PELVIS_TO_HEAD
    spine = _spine_length(store)
    if low < spine < high:
        return DataReport((), {})
    problem = (
        f"pelvis and head are {spine:.2f} apart in the median: positions seem not to be in metres"
    )
    return DataReport((f"warning     {problem}",), {})


def _report_test(store: FeatureStore, test: TestData) -> DataReport:
    pools = sorted({len(candidates) for candidates in test.candidate_idx})
    sizes = " to ".join(str(size) for size in dict.fromkeys((pools[0], pools[-1])))
    files = f"{len(test.store.ids)} different files"
    leaks = near_duplicates(store, test.store)
    mirrored = near_duplicates(store, test.store, mirrored=True)
    lines = (
        f"test        {len(test.queries)} queries x {sizes} candidates, {files}",
        f"leaks       {_leak_line(leaks, store, test.store)}",
        f"            {_leak_line(mirrored, store, test.store, ' in the mirror')}",
    )
    facts = {
        "queries": len(test.queries),
        "candidates": pools,
        "test_near_training": _named(leaks, store, test.store),
        "test_near_training_mirrored": _named(mirrored, store, test.store),
    }
    return DataReport(lines, facts)


def _leak_line(
    pairs: Sequence[DuplicatePair], store: FeatureStore, test: FeatureStore, how: str = ""
) -> str:
    count = len({test_idx for _, test_idx, _ in pairs})
    preview = _preview(_named(pairs, store, test))
    return f"{count} test motions nearly equal to training motions{how}{preview}"


def _report_statistics(data: TrainingData) -> DataReport:
    streams = split_joints.check_statistics(data.training.root, data.store.config.body)[0]
    count = f"files of {len(streams)} of {len(split_joints.SMPL_STREAMS)} streams"
    note = "checked and not used: features have a mean and deviation of their own"
    return DataReport((f"statistics  {count}, {note}",), {"statistics": sorted(streams)})


def _report_skipped(skipped: Sequence[SkippedFile]) -> DataReport:
    lines = [f"left out    {len(skipped)} training files"]
    lines += [f"            {file.file}: {file.problem}" for file in skipped[:MAX_LISTED]]
    if len(skipped) > MAX_LISTED:
        lines.append(f"            and {len(skipped) - MAX_LISTED} more, all in report.json")
    return DataReport(tuple(lines), {"left_out": [[file.file, file.problem] for file in skipped]})


def _spine_length(store: FeatureStore) -> float:
    """Median distance between pelvis and head in metres, each motion in its middle frame."""
    middle = store.offsets + store.lengths // 2
    columns = store.columns["position"]
    position = np.asarray(store.features[middle][..., columns], dtype=np.float32)
    joints, body = position.reshape(*position.shape[:2], -1, 3), store.config.body
    spine = joints[..., body.joint("head"), :] - joints[..., body.joint("pelvis"), :]
    return float(np.median(np.linalg.norm(spine, axis=-1)))


def _named(
    pairs: Iterable[DuplicatePair], left: FeatureStore, right: FeatureStore
) -> list[list[str | float]]:
    """The ids of pairs of motions and their distance in metres, as report.json has them."""
    return [[left.ids[a], right.ids[b], round(distance, 4)] for a, b, distance in pairs]


def _preview(pairs: Sequence[Sequence[str | float]]) -> str:
    """The first pairs of ids in parentheses, for the end of a line."""
    if not pairs:
        return ""
    first = ", ".join(f"{a} = {b}" for a, b, *_ in pairs[:3])
    return f" ({first}{', ...' if len(pairs) > 3 else ''})"
