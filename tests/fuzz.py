"""Mutated files into every reader: each is read, or refused in one line that names it.

    python tests/fuzz.py                                  # 5,000 cases
    python tests/fuzz.py --cases 100000 --seed 1
    python tests/fuzz.py --readers oof.npz args.json

Each case is a valid file of a format with a few bytes, cells, values or arrays changed; which ones
follows from the seed, the reader and the number of the case alone. A reader may return what it read
or raise one of the project's errors; anything else has fallen. Readers of caches may not refuse:
they make the cache again. It prints a line for each reader and the totals, and ends with 1 where a
case has fallen, took more than 2 seconds, or the process grew by more than 200 MB.
"""

import argparse
import copy
import io
import json
import logging
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS), str(TESTS.parent / "solution")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

import helpers  # noqa: E402
from motret.config import base  # noqa: E402
from motret.config.training import TrainConfig  # noqa: E402
from motret.data import feature_store, folds  # noqa: E402
from motret.data.features import FeatureConfig  # noqa: E402
from motret.data.parts import part_texts  # noqa: E402
from motret.ensemble import external, tta  # noqa: E402
from motret.ensemble.galleries import ViewEmbeddings  # noqa: E402
from motret.errors import MotretError, printable  # noqa: E402
from motret.formats import (  # noqa: E402
    challenge,
    gar,
    motion_files,
    split_joints,
    submission,
    submission_log,
)
from motret.formats.caption_files import read_caption_sets  # noqa: E402
from motret.formats.queries import read_queries  # noqa: E402
from motret.formats.text_files import read_captions  # noqa: E402
from motret.kaggle import inputs as kaggle_inputs  # noqa: E402
from motret.models import checkpoint_formats, clip_weights, embed  # noqa: E402
from motret.runs import checkpoints, history, oof, text_towers  # noqa: E402
from motret.runs.run import open_run  # noqa: E402
from motret.skeleton import SMPL  # noqa: E402
from motret.synthetic import challenge as synthetic  # noqa: E402
from motret.training import resume, wise_ft  # noqa: E402
from motret.tuning import tuned_values  # noqa: E402
from motret.utils import files  # noqa: E402

MAX_SECONDS, MAX_GROWTH_MB = 2.0, 200.0
Random = random.Random

# ---- mutations of bytes

TOKENS = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b[2J", b"\r", b"\n\n", b'"', b"'",
    b",", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"-1", b"NaN", b"Infinity", b"null",
    b"true", b"../../x", b"/etc/passwd", b"=cmd|' /C calc'!A0",
    b"</script><script>alert(1)</script>", b"os:system", b"\xe2\x80\xae", b"#", b"0" * 100, b"%s%n",
    b"\xc2\xb2", b"a" * 10_000,
    b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"cposix\nsystem\n(S'true'\ntR.",
)  # fmt: skip


def mutate_bytes(content: bytes, rng: Random) -> bytes:
    """The content after one to four changes."""
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(BYTE_CHANGES)(content, rng)
    return content


def _cut(content: bytes, rng: Random) -> tuple[int, int]:
    """A part of the content, mostly a short one."""
    start = rng.randint(0, len(content))
    longest = len(content) - start
    return start, start + min(longest, rng.choice((1, 2, 8, 64, longest)))


def _flip(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, rng: Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _remove(content: bytes, rng: Random) -> bytes:
    start, end = _cut(content, rng)
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: Random) -> bytes:
    start, end = _cut(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 2, 20)) + content[end:]


def _insert(content: bytes, rng: Random) -> bytes:
    position = rng.randint(0, len(content))
    return content[:position] + rng.choice(TOKENS) + content[position:]


def _overwrite(content: bytes, rng: Random) -> bytes:
    start, end = _cut(content, rng)
    filling = rng.choice((b"\0", b"\xff", b" ", b"9"))
    return content[:start] + filling * (end - start) + content[end:]


def _replace_all(content: bytes, rng: Random) -> bytes:
    return rng.choice((b"", rng.randbytes(200), rng.choice(TOKENS), b"\n" * 50, b"{}", b"[]"))


def _change_digits(content: bytes, rng: Random) -> bytes:
    positions = [index for index, byte in enumerate(content[:100_000]) if 48 <= byte <= 57]
    if not positions:
        return content
    position = rng.choice(positions)
    number = rng.choice((b"0", b"-7", b"99999999999999999999", b"1e400", b"0.5", b"\xd9\xa3"))
    return content[:position] + number + content[position + 1 :]


BYTE_CHANGES = (
    _flip, _truncate, _remove, _repeat, _insert, _insert, _overwrite, _change_digits,
    _change_digits, _replace_all,
)  # fmt: skip

# ---- mutations of values: of JSON, of checkpoints, of arrays, of tables

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**18, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", "x", "\0",
    "../../escaped", "/etc/passwd", "os:system", "subprocess:Popen", "builtins:exec", "hf:nowhere",
    "\ud800", "\x1b[31m", "=1+1", "a" * 20_000, [], {}, [[]], [None], ["x"], {"a": {"b": []}},
    [1e308] * 3,
)  # fmt: skip


def change_value(content: Any, rng: Random) -> Any:
    """The content with one value, key or length in it changed, wherever it stands."""
    if rng.random() < 0.15 or not isinstance(content, dict | list) or not content:
        return copy.deepcopy(rng.choice(VALUES))
    changed: Any = dict(content) if isinstance(content, dict) else list(content)
    place = rng.choice(list(changed) if isinstance(changed, dict) else range(len(changed)))
    kind = rng.random()
    if kind < 0.1:
        changed.pop(place)
    elif kind < 0.2 and isinstance(changed, dict):
        changed[rng.choice(("", "x", "__class__", "settings", place))] = changed.pop(place)
    elif kind < 0.2:
        changed += [changed[place]] * rng.choice((1, 3))
    else:
        changed[place] = change_value(changed[place], rng)
    return changed


def mutate_json(content: bytes, rng: Random) -> bytes:
    """JSON with changed values, or one time in four with changed bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.randint(1, 3)):
        value = change_value(value, rng)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def change_array(array: np.ndarray, rng: Random) -> np.ndarray:
    """Another array: of another type, shape or content."""
    kind = rng.randrange(10)
    if kind < 4:
        types = ("float16", "float64", "int8", "uint64", "S3", "U4", "?", "complex64", "M8[s]")
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return array.astype(rng.choice(types))
            except (ValueError, TypeError, OverflowError, RuntimeError):
                return np.zeros(3)
    if kind < 6:
        return array[: rng.randint(0, len(array))] if array.ndim else np.array([array])
    if kind == 6:
        return array[None] if rng.random() < 0.5 else array.reshape(-1)
    if kind == 7 and array.dtype.kind in "iuf" and array.size:
        changed = array.copy().reshape(-1)
        value = rng.choice((-1, 10**6, 0)) if array.dtype.kind == "i" else rng.choice((0, 7))
        if array.dtype.kind == "f":
            value = rng.choice((np.nan, np.inf, 1e30, -1e30))
        with np.errstate(all="ignore"):
            changed[rng.randrange(len(changed))] = np.array(value).astype(array.dtype)
        return changed.reshape(array.shape)
    if kind == 8:
        return np.array([None, {}], dtype=object)
    return np.zeros(rng.choice(((), (0,), (2, 2), (1, 1, 1, 1))))


def mutate_npy(content: bytes, rng: Random) -> bytes:
    """An .npy file with a changed array, or with changed bytes."""
    if rng.random() < 0.5:
        return mutate_bytes(content, rng)
    stream = io.BytesIO()
    np.save(stream, change_array(np.load(io.BytesIO(content)), rng))
    return stream.getvalue()


def mutate_npz(content: bytes, rng: Random) -> bytes:
    """An .npz file with changed arrays, or two times in five with changed bytes."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    arrays = dict(np.load(io.BytesIO(content)))
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(arrays) or ["x"])
        kind = rng.random()
        if kind < 0.15:
            arrays.pop(name, None)
        elif kind < 0.25:
            arrays[rng.choice(("oof99", "x", "../x", name))] = np.zeros(2)
        elif name in arrays:
            arrays[name] = change_array(arrays[name], rng)
    if rng.random() < 0.05:
        arrays["bomb"] = np.zeros(300_000_000, np.uint8)
        arrays = {"bomb": arrays["bomb"]}
        return _bomb()
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _bomb() -> bytes:
    """A small .npz file that states 20 GB."""
    stream, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (5_000_000_000,)}
    )
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("similarity.npy", header.getvalue() + b"\0" * 1000)
    size, whole = (len(header.getvalue()) + 1000).to_bytes(4, "little"), stream.getvalue()
    return whole.replace(size, (4_000_000_000).to_bytes(4, "little"))


def mutate_tensors(content: bytes, rng: Random) -> bytes:
    """A file of torch.save with changed values or tensors, or half the time with changed bytes."""
    if rng.random() < 0.5:
        return mutate_bytes(content, rng)

    def change(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and rng.random() < 0.7:
            shape = rng.choice(((), (0,), (3,), (2, 2)))
            return torch.zeros(shape, dtype=rng.choice((torch.int8, torch.bfloat16, torch.float64)))
        if isinstance(value, dict | list) and value and rng.random() < 0.85:
            changed: Any = dict(value) if isinstance(value, dict) else list(value)
            place = rng.choice(list(changed) if isinstance(changed, dict) else range(len(changed)))
            if rng.random() < 0.15:
                changed.pop(place)
            else:
                changed[place] = change(changed[place])
            return changed
        return copy.deepcopy(rng.choice([each for each in VALUES if each != 10**400]))

    value = torch.load(io.BytesIO(content), weights_only=True)
    for _ in range(rng.randint(1, 3)):
        value = change(value)
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def mutate_csv(content: bytes, rng: Random) -> bytes:
    """A table with changed cells and rows, or one time in three with changed bytes."""
    if rng.random() < 0.33:
        return mutate_bytes(content, rng)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows or [[""]])
        place = rng.randrange(len(row)) if row else 0
        kind = rng.random()
        if kind < 0.15:
            row.append(rng.choice(("x", "", "1")))
        elif kind < 0.3 and row:
            row.pop(place)
        elif kind < 0.4:
            rows.append(list(row))
        elif row:
            text = rng.choice([str(value) for value in VALUES[:-8]] + ["1.5", "٣", "motion_1", '"'])
            row[place] = text
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


# ---- readers


@dataclass(frozen=True)
class Reader:
    """A reader of a format.

    file: the valid file, which each case replaces; read: reads it; mutate: changes its content;
    is_cache: whether it may refuse nothing.
    """

    name: str
    file: Path
    read: Callable[[], object]
    mutate: Callable[[bytes, Random], bytes] = mutate_bytes
    is_cache: bool = False


@dataclass
class Result:
    """What became of the cases of a reader; fallen: number of the case and what it raised."""

    cases: int = 0
    read: int = 0
    slowest: float = 0.0
    fallen: list[tuple[int, str]] = field(default_factory=list)

    @property
    def refused(self) -> int:
        return self.cases - self.read - len(self.fallen)


def make_readers(folder: Path) -> list[Reader]:
    """Valid files of every format in a folder, and their readers."""
    return [
        *_data_readers(folder / "data"),
        *_split_joints_readers(folder / "split"),
        *_test_readers(folder / "test"),
        *_submission_readers(folder / "submissions"),
        *_run_readers(folder / "runs"),
        *_weights_readers(folder / "weights"),
        *_member_readers(folder / "members"),
        *_cache_readers(folder / "cache"),
    ]


def _data_readers(root: Path) -> list[Reader]:
    groups = {"1": "a", "2": "a", "3": "b"}
    captions = {"1": ["a person waves#a/DET person/NOUN#0.0#0.0", "both bow"]}
    helpers.write_data(root, ["1", "2", "3"], captions, groups)
    motion = root / "motions/1.npy"
    sets = root / "sets.json"
    files.write_json(sets, {"1": ["a man bows", "someone bows"], "2": ["both wave", "they wave"]})
    entries = [("1", "a man bows", {"torso": "bends", "left_arm": "is raised"}), ("2", None, {})]
    gar.write_gar(root / "gar.json", entries)
    made_of = synthetic.OracleScore(score=0.8, error=0.01, test=0.8, chance=0.1)
    sample, marker = root.parent / "sample", {"made_by": "sample.py", "version": 1}
    marker |= {"settings": {"motions": 3}, "perfect_reader": asdict(made_of)}
    files.write_json(sample / synthetic.MARKER, marker)

    def read_training() -> object:
        return challenge.read_training(root)

    return [
        Reader("motion", motion, lambda: motion_files.read_motion(motion), mutate_npy),
        Reader("motion header", motion, lambda: motion_files.motion_shape(motion), mutate_npy),
        Reader(
            "repaired motion",
            motion,
            lambda: motion_files.read_motion(motion, 6, []),
            mutate_npy,
        ),
        Reader("captions", root / "texts/1.txt", lambda: read_captions(root / "texts/1.txt", root)),
        Reader("train.txt", root / "train.txt", read_training),
        Reader("groups.csv", root / "groups.csv", read_training, mutate_csv),
        Reader("caption sets", sets, lambda: read_caption_sets(sets), mutate_json),
        Reader("GAR JSON", root / "gar.json", lambda: gar.read_gar(root / "gar.json"), mutate_json),
        Reader(
            "sample marker",
            sample / synthetic.MARKER,
            lambda: synthetic.read_marker(sample),
            mutate_json,
        ),
    ]


def _split_joints_readers(root: Path) -> list[Reader]:
    texts = [{"id": name, "caption": "a man bows", "part_descriptions": {}} for name in "12"]
    for number, name in enumerate("12"):
        bodies = helpers.body(8, persons=1, seed=number)[:, 0]
        for stream, joints in split_joints.SMPL_STREAMS.items():
            path = root / "split_joints" / name / f"{stream}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, bodies[:, list(joints)])
    files.write_json(root / "texts/gar_train.json", texts)
    names = list(SMPL.joints)
    table = {"names": names, "parents": list(map(int, SMPL.parents))}
    table |= {"parts": {part: list(joints) for part, joints in SMPL.parts.items()}}
    files.write_json(root / "skeleton.json", table)
    meta = {"fps": 20, "PART_JOINTS": table["parts"]}
    files.write_json(root / "meta.json", meta)
    for kind in ("Mean", "Std"):
        np.save(root / f"torso_{kind}.npy", np.ones(3 * len(SMPL.parts["torso"])))

    def read() -> object:
        return split_joints.read_training(root)

    def check_parts() -> object:
        with tempfile.TemporaryDirectory(dir=root.parent) as work_dir:
            return split_joints.check_part_files(read(), Path(work_dir), jobs=1)

    return [
        Reader("skeleton.json", root / "skeleton.json", read, mutate_json),
        Reader("meta.json", root / "meta.json", read, mutate_json),
        Reader("gar_train.json", root / "texts/gar_train.json", read, mutate_json),
        Reader("body", root / "split_joints/1/holistic.npy", check_parts, mutate_npy),
        Reader("part", root / "split_joints/2/left_arm.npy", check_parts, mutate_npy),
        Reader("statistic", root / "torso_Std.npy", read, mutate_npy),
    ]


def _test_readers(root: Path) -> list[Reader]:
    for query in ("1", "2"):
        for number in range(1, 11):
            path = root / query / f"motion_{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.zeros((6, 192), np.float32))
        (root / query / "text.txt").write_text("they bow\n")
    truth = root.parent / "gt.csv"
    truth.write_text("query_id,candidate\n1,3\n2,motion_7\n")
    return [
        Reader("query text", root / "1/text.txt", lambda: read_queries(root)),
        Reader("gt.csv", truth, lambda: submission.read_ground_truth(truth), mutate_csv),
    ]


def _submission_readers(root: Path) -> list[Reader]:
    path, log = root / "one.csv", root / "log.csv"
    submission.write_submission(path, {"1": range(1, 11), "2": range(10, 0, -1)})
    submission_log.append_submission(log, ("now", "one.csv", "0.7", "0.01", "a", "h", "g", ""))
    score = {"mean": 0.7, "error": 0.01, "motions": 20, "groups": 4}
    record = {"members": [{"run": "a", "weight": 1.0, "local_score": score}], "data": "d"}
    record |= {"folds": "f", "local_score": score, "true_score": None, "gains": []}
    files.write_json(root / "one.json", record)
    return [
        Reader("submission.csv", path, lambda: submission.read_submission(path), mutate_csv),
        Reader("log.csv", log, lambda: submission_log.latest_submission(root), mutate_csv),
        Reader(
            "submission.json",
            root / "one.json",
            lambda: submission_log.read_record(path),
            mutate_json,
        ),
    ]


def _run_readers(root: Path) -> list[Reader]:
    run = helpers.made_run(root, "one")
    fold_dir, data = run.fold_dir(0), helpers.training_data()
    stats = [helpers.epoch_stats(1), helpers.epoch_stats(2, loss_terms={"global": 1.5})]
    history.write_metrics(fold_dir / "metrics.csv", stats)
    model = torch.nn.Linear(2, 3)
    last = {"model": model.state_dict(), "best": 0.5, "loaded": []}
    last |= {"history": [asdict(each) for each in stats]}
    checkpoints.save_checkpoint(fold_dir / "last.pt", last)
    best = fold_dir / "best_epoch2.pt"
    checkpoints.save_checkpoint(best, {"model": model.state_dict(), "epoch": 2, "score": 0.5})
    files.write_json(fold_dir / "wise.json", {"alpha": 0.5, "halves": [0.5, 0.5], "scores": {}})
    (fold_dir / "oof_mirror.npz").write_bytes((fold_dir / "oof.npz").read_bytes())
    split = root / "folds"
    named = helpers.folds()
    table = "id,fold,group\n" + "".join(
        f"{name},{fold},{group}\n"
        for name, fold, group in zip(data.training.ids, named.fold, named.group, strict=True)
    )
    files.write_text(split / "folds.csv", table)
    digest = folds._hash_folds(data.training.ids, named.fold, named.group)
    sidecar = {"hash": digest, "data": data.fingerprint, "folds": 2, "seed": 0}
    files.write_json(split / "folds.json", sidecar)
    towers = root.parent / text_towers.FOLDER
    entry = text_towers.PackedTower("ViT-B-32", "openai", "clip/weights.pt")
    text_towers.write_index(towers, [entry])
    config = base.build_config(TrainConfig, {"out_dir": root, "tuned": "auto"})
    best_json = tuned_values.tuning_dir(root, config.variant) / "best.json"
    identity = tuned_values.tuning_identity(config, None, None)
    values = {"lr": 1e-3, "tau": 0.05, "mirror": 0.5}
    confirmed = {"tuned_on": [0], "confirmed_on": [1, 2]}
    files.write_json(best_json, {"belongs": identity, "values": values} | confirmed)
    wise = replace(run, config=base.build_config(TrainConfig, {"wise_alpha": "auto"}))

    def read_tuned() -> object:
        tuned = tuned_values.find_tuned_values(config)
        return base.build_config(TrainConfig, tuned.values)

    def read_last() -> object:
        checkpoints.load_checkpoint(fold_dir / "last.pt", helpers.CPU)
        return resume._epochs_of(fold_dir / "last.pt")

    def read_packed_towers() -> object:
        found = kaggle_inputs.AttachedInputs(root, towers=[towers])
        return text_towers.read_index(towers), found.text_tower_flags("full", "")

    return [
        Reader("args.json", run.folder / "args.json", lambda: open_run(run.folder), mutate_json),
        Reader(
            "oof.npz",
            fold_dir / "oof.npz",
            lambda: oof.load_out_of_fold(run, 0).similarity(),
            mutate_npz,
        ),
        Reader(
            "metrics.csv",
            fold_dir / "metrics.csv",
            lambda: history.read_metrics(fold_dir / "metrics.csv"),
            mutate_csv,
        ),
        Reader("last.pt", fold_dir / "last.pt", read_last, mutate_tensors),
        Reader(
            "best checkpoint",
            best,
            lambda: checkpoints.load_weights(best, torch.nn.Linear(2, 3), helpers.CPU),
            mutate_tensors,
        ),
        Reader(
            "wise.json",
            fold_dir / "wise.json",
            lambda: wise_ft.candidate_alphas(wise, None, named),
            mutate_json,
        ),
        Reader("folds.csv", split / "folds.csv", lambda: folds.read_folds(data, split), mutate_csv),
        Reader(
            "folds.json", split / "folds.json", lambda: folds.read_folds(data, split), mutate_json
        ),
        Reader("towers.json", towers / text_towers.INDEX, read_packed_towers, mutate_json),
        Reader("best.json", best_json, read_tuned, mutate_json),
    ]


def _weights_readers(root: Path) -> list[Reader]:
    root.mkdir()
    layer = "temporal_decoder_blocks.0."
    shapes = {"sa_block.query.weight": (8, 8), "ffn.linear1.weight": (16, 8), "x": (1,)}
    published = root / "motiondiffuse.pt"
    encoder = {layer + name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save({"encoder": encoder}, published)
    archive = root / "clip.pt"
    torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)).save(str(archive))
    config = root / "open_clip_config.json"
    files.write_json(config, {"model_cfg": {"quick_gelu": True}})

    def read_published() -> object:
        weights = checkpoint_formats.read_weights(published)
        kind = checkpoint_formats.recognise_format(published, weights)
        return checkpoint_formats.architecture_of(published, kind, weights)

    return [
        Reader("published weights", published, read_published, mutate_tensors),
        Reader("CLIP archive", archive, lambda: clip_weights.read_archive(archive)),
        Reader(
            "open_clip_config.json",
            config,
            lambda: clip_weights._activation_of_file(root / "weights.bin"),
            mutate_json,
        ),
    ]


def _member_readers(root: Path) -> list[Reader]:
    root.mkdir()
    data, split = helpers.training_data(), helpers.folds()
    queries = read_queries(root.parent / "test")
    rng = np.random.default_rng(0)
    similarities = [rng.normal(size=10) for _ in queries]
    saved = root / "saved.npz"
    external.save_similarities(saved, queries, similarities, [("a", similarities)])
    captions = [len(texts) for texts in data.training.captions]
    galleries = {
        f"oof{fold}": rng.normal(size=(sum(captions[idx] for idx in val_idx), len(val_idx)))
        for fold in range(2)
        for val_idx in [split.val_idx(fold)]
    }
    np.savez(root / "scored.npz", folds=split.hash, **galleries, **dict(np.load(saved)))
    ranks = root / "ranks.csv"
    submission.write_submission(ranks, {"1": range(1, 11), "2": range(10, 0, -1)})

    def read(path: Path) -> Callable[[], object]:
        return lambda: external.read_external(path, queries, data, split)

    return [
        Reader("member .npz", root / "scored.npz", read(root / "scored.npz"), mutate_npz),
        Reader("member .csv", ranks, read(ranks), mutate_csv),
        Reader(
            "saved similarities",
            saved,
            lambda: external.read_saved_members(saved, queries),
            mutate_npz,
        ),
    ]


def _cache_readers(root: Path) -> list[Reader]:
    data = helpers.write_data(root / "data", ["1", "2", "3"])
    config = helpers.data_settings(data)
    training = challenge.read_training(data)

    def pack() -> feature_store.FeatureStore:
        return feature_store.build_feature_cache(
            training.ids, training.paths, FeatureConfig(), config, jobs=1
        )[0]

    store = pack().folder
    (key,) = (config.work_dir / "seen").iterdir()
    run = helpers.made_run(root, "one")
    view = tta.TtaView("mirror")
    vectors = np.eye(3, 4, dtype=np.float32)
    tta.save_view_embeddings(run, 0, view, ViewEmbeddings(vectors, vectors, 0.5, "key"))
    tower = _Tower()
    texts = ("a", "b c", "d")

    def embed_texts() -> object:
        return embed.make_caption_bank(texts, tower, True, root / "text", helpers.CPU)

    embed_texts()
    (cached_texts,) = (root / "text").iterdir()
    described = replace(helpers.training_data(), training=training)
    parts = base.build_config(TrainConfig, {"data_dir": data, "work_dir": root / "work"})
    part_file = part_texts._described_file(parts, described)
    gar.write_gar(part_file, [(name, None, {"torso": "bends"}) for name in training.ids])

    def read_parts() -> object:
        original = part_texts.describer.describe_training
        entries = [(name, None, {"torso": "bends"}) for name in training.ids]
        part_texts.describer.describe_training = lambda *_: entries
        try:
            return part_texts._parts_of_motions(part_file, parts, described)
        finally:
            part_texts.describer.describe_training = original

    return [
        Reader("store.json", store / "store.json", pack, mutate_json, is_cache=True),
        Reader("index.npz", store / "index.npz", pack, mutate_npz, is_cache=True),
        Reader("features.npy", store / "features.npy", pack, mutate_npy, is_cache=True),
        Reader("key of a store", key, pack, is_cache=True),
        Reader(
            "view",
            run.fold_dir(0) / "oof_mirror.npz",
            lambda: tta.load_view_embeddings(run, 0, view),
            mutate_npz,
            is_cache=True,
        ),
        Reader("embedded captions", cached_texts, embed_texts, mutate_npy, is_cache=True),
        Reader("described parts", part_file, read_parts, mutate_json, is_cache=True),
    ]


class _Tower(helpers.TextTower):
    """A frozen text tower whose vectors are the lengths of captions."""

    dim = 4

    def tokenize(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([len(text) for text in captions])
        return torch.ones(len(captions), int(lengths.max()), dtype=torch.long), lengths

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return lengths[:, None].float().expand(-1, self.dim)


# ---- running


def run_cases(reader: Reader, cases: range, seed: int, root: Path) -> Result:
    """Runs some cases of a reader; its file is as it was afterwards."""
    valid, result = reader.file.read_bytes(), Result()
    reader.read()  # the valid file is read
    try:
        for case in cases:
            content = reader.mutate(valid, Random(f"{seed} {reader.name} {case}"))
            reader.file.parent.mkdir(parents=True, exist_ok=True)
            reader.file.unlink(missing_ok=True)
            reader.file.write_bytes(content)
            start = time.perf_counter()
            fault = _fault_of(reader, root, result)
            result.slowest = max(result.slowest, time.perf_counter() - start)
            result.cases += 1
            if fault:
                result.fallen.append((case, fault))
    finally:
        reader.file.parent.mkdir(parents=True, exist_ok=True)
        reader.file.write_bytes(valid)
    return result


def _fault_of(reader: Reader, root: Path, result: Result) -> str:
    """What is wrong with how a reader took a file; empty where it read or refused it."""
    try:
        reader.read()
        result.read += 1
    except MotretError as error:
        line = str(error)
        if reader.is_cache:
            return f"a cache is fatal: {line}"
        if printable(line) != line or str(root) not in line:
            return f"not a line that names the file: {line!r}"
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error}"[:200]
        return f"{text} at {Path(place.filename).name}:{place.lineno}"
    return ""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of this program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=5000, help="cases of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=[], help="names of the readers to try")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases, prints the totals; 1 where one has fallen."""
    args = parse_arguments(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="motret-fuzz-") as name:
        readers = make_readers(Path(name))
        readers = [each for each in readers if not args.readers or each.name in args.readers]
        share, start = -(-args.cases // max(1, len(readers))), time.perf_counter()
        for reader in readers:
            run_cases(reader, range(3), args.seed + 1, Path(name))  # what is imported on first use
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        totals = Result()
        for reader in readers:
            result = run_cases(reader, range(share), args.seed, Path(name))
            totals.cases, totals.read = totals.cases + result.cases, totals.read + result.read
            totals.slowest = max(totals.slowest, result.slowest)
            totals.fallen += result.fallen
            print(f"{reader.name:24} {_line(result)}", flush=True)
            for case, fault in result.fallen[:5]:
                print(f"    case {case}: {fault}")
        growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = time.perf_counter() - start
    print(f"{len(readers)} readers, seed {args.seed}: {_line(totals)}")
    print(f"{seconds:.0f} s, the process grew by {growth:.0f} MB")
    return int(bool(totals.fallen) or totals.slowest > MAX_SECONDS or growth > MAX_GROWTH_MB)


def _line(result: Result) -> str:
    return (
        f"{result.cases:7,d} cases: {result.read:6,d} read, {result.refused:6,d} refused, "
        f"{len(result.fallen)} fallen, slowest {result.slowest:.2f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
