"""The data report: what is there, what is odd, what was left out."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from motret.data import features
from motret.data.captions import normalise, words
from motret.data.dataset import TestData, TrainingData, check_persons
from motret.data.duplicates import near_duplicates
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.formats import split_joints

N_SHOWN = 5


@dataclass(frozen=True)
class DataReport:
    """Lines for people, and the same facts as plain values."""

    lines: tuple[str, ...]
    facts: dict[str, object]


def make_data_report(data: TrainingData, test: TestData | None) -> DataReport:
    """Counts, lengths, captions, duplicates (also of test motions among the training motions) and files left out."""
    training, store = data.training, data.store
    if test is not None:
        check_persons(test.store, store.persons, test.queries[0].paths[0].parent)
    counts = Counter(caption for captions in training.captions for caption in set(map(normalise, captions)))  # -> motions
    sizes = [len(words(caption)) for captions in training.captions for caption in captions]
    vocabulary = {word for caption in counts for word in caption.split()}
    exact, near, twins = exact_duplicates(store), near_duplicates(store), near_duplicates(store, mirrored=True)
    spine = _spine_length(store)
    facts: dict[str, object] = {
        "motions": len(store.ids),
        "persons": store.persons,
        "up": store.config.up,
        "hours": float(store.lengths.sum() / store.config.fps / 3600),
        "frames": {name: int(np.quantile(store.lengths, at)) for name, at in (("shortest", 0), ("median", 0.5), ("longest", 1))},
        "pelvis_to_head": spine,
        "captions": len(sizes),
        "distinct_captions": len(counts),
        "captions_of_several_motions": sum(count > 1 for count in counts.values()),
        "words_per_caption": float(np.mean(sizes)),
        "vocabulary": len(vocabulary),
        "exact_duplicates": [[store.ids[a], store.ids[b]] for a, b in exact],
        "near_duplicates": [[store.ids[a], store.ids[b], round(distance, 4)] for a, b, distance in near],
        "mirrored_duplicates": [[store.ids[a], store.ids[b], round(distance, 4)] for a, b, distance in twins],
        "left_out": [[skip.file, skip.problem] for skip in training.skipped],
        "groups": None if training.groups is None else len(set(training.groups.values())),
    }
    frames = facts["frames"]
    lines = [
        f"motions     {len(store.ids)} of {store.persons} person(s), {facts['hours']:.1f} h"
        + ("" if training.rotations else "; positions alone, no joint rotations"),
        f"axes        {store.config.up} is up; {store.config.fps:g} frames a second",
        f"bodies      {describe_bodies(store.config, spine)}",
        f"frames      {frames['shortest']} shortest, {frames['median']} median, {frames['longest']} longest",
        f"captions    {facts['captions']}, {len(counts)} distinct, {facts['captions_of_several_motions']} of several motions; "
        f"{facts['words_per_caption']:.1f} words on average, {len(vocabulary)} different words",
        f"duplicates  {len(exact)} pairs equal, {len(near)} pairs nearly equal{_preview([(store.ids[a], store.ids[b]) for a, b, _ in near])}",
        f"            {len(twins)} pairs nearly equal in the mirror{_preview([(store.ids[a], store.ids[b]) for a, b, _ in twins])}",
        "groups      " + (f"{facts['groups']} in groups.csv" if training.groups else "none given (made from captions and duplicates)"),
    ]
    if not features.PELVIS_TO_HEAD[0] < spine < features.PELVIS_TO_HEAD[1]:
        lines.append(f"warning     pelvis and head are {spine:.2f} apart in the median: positions seem not to be in metres")
    if test is not None:
        leaks = near_duplicates(store, test.store)
        pools = sorted({len(rows) for rows in test.candidate_idx})
        facts["queries"], facts["candidates"] = len(test.queries), pools
        facts["test_near_training"] = [[store.ids[a], test.store.ids[b], round(distance, 4)] for a, b, distance in leaks]
        told = " to ".join(str(size) for size in dict.fromkeys((pools[0], pools[-1])))
        lines.append(f"test        {len(test.queries)} queries x {told} candidates, {len(test.store.ids)} different files")
        turned = near_duplicates(store, test.store, mirrored=True)
        facts["test_near_training_mirrored"] = [[store.ids[a], test.store.ids[b], round(distance, 4)] for a, b, distance in turned]
        for found, how in ((leaks, ""), (turned, " in the mirror")):
            pairs = [(store.ids[a], test.store.ids[b]) for a, b, _ in found]
            count = len({b for _, b, _ in found})
            title = "leaks     " if not how else "          "
            lines.append(f"{title}  {count} test motions nearly equal to training motions{how}{_preview(pairs)}")
    if split_joints.has_split_joints(training.root):
        facts["statistics"] = sorted(split_joints.check_statistics(training.root, store.config.body)[0])
        told = "checked and not used: features have a mean and deviation of their own"
        lines.append(f"statistics  files of {len(facts['statistics'])} of {len(split_joints.SMPL_STREAMS)} streams, {told}")
    lines.append(f"left out    {len(training.skipped)} training files")
    lines += [f"            {skip.file}: {skip.problem}" for skip in training.skipped[:N_SHOWN]]
    if len(training.skipped) > N_SHOWN:
        lines.append(f"            and {len(training.skipped) - N_SHOWN} more, all in report.json")
    return DataReport(tuple(lines), facts)


def describe_bodies(config: FeatureConfig, spine: float | None = None) -> str:
    """The joints of the bodies and the unit of their positions; spine: median metres between pelvis and head."""
    body = config.body
    size = "" if spine is None else f" (pelvis to head {spine / config.metres:.4g})"
    told = f"{len(body.joints)} joints ({body.name}), in {features.UNITS[config.metres]} by their size{size}"
    if dict(body.parts) != dict(body.limbs):
        told += f"; joints of the part streams: {', '.join(f'{part} {len(joints)}' for part, joints in body.parts.items())}"
    return told + ("; stored in the mirror by their feet, turned back" if config.reflected else "")


def exact_duplicates(store: FeatureStore) -> list[tuple[int, int]]:
    """Pairs of rows whose files have the same bytes; the first of each kind with every later one."""
    first: dict[str, int] = {}
    return [(first[content], row) for row, content in enumerate(store.digests) if first.setdefault(content, row) != row]


def _spine_length(store: FeatureStore) -> float:
    """Median distance between pelvis and head, in the data's unit."""
    middle = store.offsets + store.lengths // 2
    position = np.asarray(store.features[middle][..., store.columns["position"]], dtype=np.float32)
    joints, body = position.reshape(*position.shape[:2], -1, 3), store.config.body
    return float(np.median(np.linalg.norm(joints[..., body.joint("head"), :] - joints[..., body.joint("pelvis"), :], axis=-1)))


def _preview(pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    return " (" + ", ".join(f"{a} = {b}" for a, b in pairs[:3]) + (", ...)" if len(pairs) > 3 else ")")
