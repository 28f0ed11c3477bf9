"""What tests share: settings, motions and models in memory, generated challenges, pictures."""

import functools
import json
import os
import signal
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib import image
from torch import Tensor

import sample
import train
from motret.config import base
from motret.config.base import DataConfig
from motret.config.scripts import SceneConfig
from motret.config.training import MotionConfig, TrainConfig
from motret.data.dataset import TrainingData, load_training
from motret.data.feature_store import FeatureStore
from motret.data.features import FeatureConfig
from motret.data.features import feature_width as features_width
from motret.data.folds import Folds
from motret.data.inputs import CaptionBank, MotionBatch
from motret.formats.challenge import TrainingSet
from motret.formats.split_joints import SMPL_STREAMS
from motret.models.motion_tower import MotionTransformer
from motret.models.text_tower import TextTower
from motret.runs import checkpoints, oof
from motret.runs.history import EpochStats
from motret.runs.oof import OutOfFold
from motret.runs.resolve import resolve_run
from motret.runs.run import Run, create_run_dir
from motret.skeleton import (
    MIRROR,
    N_JOINTS,
    N_ROTATIONS,
    PARENTS,
    PARTS,
    join_columns,
    split_columns,
)
from motret.synthetic.motion import REST_OFFSETS
from motret.training import fit
from motret.training import validate as validate_module
from motret.training.context import FoldContext, TrainContext, make_context

SMALL = {
    "width": 16,
    "heads": 2,
    "layers": 2,
    "cross_person_layers": 1,
    "proj_dim": 8,
    "max_frames": 60,
    "text_hidden": 16,
    "batch_size": 6,
    "epochs": 2,
    "mirror": 0.0,
    "speed": 1.0,
    "ema": 0.0,
    "device": "cpu",
    "amp": "off",
    "jobs": 1,
}


SCRATCH = {"text_weights": "none", "text_width": 64, "text_layers": 1}


TEXT_DIM = 12


CPU = torch.device("cpu")


def config(**values) -> TrainConfig:
    return base.build_config(TrainConfig, SMALL | values)


def store(lengths, persons=2, seed=0) -> FeatureStore:
    lengths = np.array(lengths)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(int(lengths.sum()), persons, features_width(persons))).astype(
        np.float16
    )
    ids = tuple(f"{row:05d}" for row in range(len(lengths)))
    return FeatureStore(
        Path("nowhere"),
        FeatureConfig(),
        ids,
        lengths.cumsum() - lengths,
        lengths,
        ids,
        features,
        (),
    )


def training_data(captions=None, lengths=None, persons=2, seed=0) -> TrainingData:
    """20 motions of 4 to 80 frames with one to three captions each, unless told otherwise."""
    captions = captions or tuple(
        tuple(f"motion {row} told {way}" for way in range(1 + row % 3)) for row in range(20)
    )
    lengths = (
        np.random.default_rng(seed).integers(4, 80, len(captions)) if lengths is None else lengths
    )
    packed = store(lengths, persons, seed)
    paths = tuple(Path(f"{name}.npy") for name in packed.ids)
    return TrainingData(
        TrainingSet(Path("nowhere"), packed.ids, paths, captions, None, ()), packed, "data-a", True
    )


def folds(motions=20, count=2) -> Folds:
    return Folds(np.arange(motions) % count, np.arange(motions).astype(str), "folds-a", count)


def bank(data: TrainingData, seed=0) -> CaptionBank:
    distinct = sorted({caption for own in data.training.captions for caption in own})
    vectors = np.random.default_rng(seed).normal(size=(len(distinct), TEXT_DIM)).astype(np.float32)
    return CaptionBank(
        {caption: row for row, caption in enumerate(distinct)}, vectors=torch.from_numpy(vectors)
    )


class NoTower(TextTower):
    """A frozen text tower whose vectors are all in the bank."""

    dim = TEXT_DIM


def workplace(chosen: TrainConfig, data: TrainingData) -> TrainContext:
    return make_context(chosen, data, bank(data))


def motion_batch(lengths, persons=2, features=10, seed=0, generator=None) -> MotionBatch:
    """Random motions, held at their last frame up to the longest."""
    rng = np.random.default_rng(seed)
    frames = torch.from_numpy(
        rng.normal(size=(len(lengths), max(lengths), persons, features)).astype(np.float32)
    )
    for motion, length in zip(frames, lengths, strict=True):
        motion[length:] = motion[length - 1]
    return MotionBatch(frames, torch.tensor(lengths), generator)


@functools.cache
def challenge(seed: int = 0) -> Path:
    """24 training motions, 3 queries of 12 candidates; made once a session."""
    folder = _temporary() / f"challenge{seed}"
    assert (
        sample.main(
            [
                "--out",
                str(folder),
                "--motions",
                "24",
                "--queries",
                "3",
                "--candidates",
                "12",
                "--seed",
                str(seed),
            ]
        )
        == 0
    )
    return folder


_kept: list[tempfile.TemporaryDirectory] = []


@functools.cache
def _temporary() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="motret-tests-")
    _kept.append(holder)  # removed when the interpreter ends
    return Path(holder.name)


def places(data: Path | None = None) -> list[str]:
    """Flags of data and machine; all runs on the same data share packed features and folds."""
    data = data or challenge()
    return [
        f"--data_dir={data}",
        f"--work_dir={data}-work",
        f"--folds_dir={data}-folds",
        "--device=cpu",
        "--jobs=1",
    ]


def flags(**values) -> list[str]:
    """`--name=value`; `--name` for True."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in values.items()]


def train_flags(out_dir: Path, name: str, data: Path | None = None, **values) -> list[str]:
    small = {
        key: value
        for key, value in (SMALL | SCRATCH | values).items()
        if key not in ("device", "jobs")
    }
    return ["holistic", *places(data), *flags(out_dir=out_dir, run_name=name, folds=2, **small)]


def run_training(out_dir: Path, name: str, data: Path | None = None, **values) -> int:
    return train.main(train_flags(out_dir, name, data, **values))


SMALL_CHALLENGE = SceneConfig(motions=24, queries=3, candidates=12)


def rest_pose() -> np.ndarray:
    """(22, 3) standing at the origin, facing +z, left towards +x."""
    joints = np.zeros((N_JOINTS, 3))
    for joint, parent in enumerate(PARENTS):
        joints[joint] = REST_OFFSETS[joint] + (joints[parent] if parent >= 0 else 0)
    return joints


def turned(points: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Points (..., 3) turned about the vertical axis, +z towards +x for a positive angle."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack(
        np.broadcast_arrays(
            np.cos(angle) * x + np.sin(angle) * z, y, np.cos(angle) * z - np.sin(angle) * x
        ),
        axis=-1,
    )


def body(frames: int, persons: int = 2, seed: int = 0) -> np.ndarray:
    """Positions (T, persons, 22, 3) of people who sway, turn and walk about smoothly."""
    rng = np.random.default_rng([seed, persons])
    seconds = np.arange(frames)[:, None, None, None] / 30

    def waves(*shape: int) -> np.ndarray:  # (T, *shape)
        return np.sin(
            2 * np.pi * (rng.uniform(0.2, 1.0, shape) * seconds + rng.uniform(0, 1, shape))
        )

    pose = (
        rest_pose()
        + rng.normal(0, 0.05, (persons, N_JOINTS, 3))
        + 0.05 * waves(persons, N_JOINTS, 3)
    )
    angle = rng.uniform(-np.pi, np.pi, (persons, 1)) + 0.8 * waves(persons, 1, 1)[..., 0]
    place = (
        rng.uniform(-2, 2, (persons, 1, 3)) * (1, 0, 1)
        + 0.3 * waves(persons, 1, 3) * (1, 0.2, 1)
        + (0, 0.95, 0)
    )
    return (turned(pose, angle) + place).astype(np.float32)


def sixes(frames: int, persons: int = 2, seed: int = 0) -> np.ndarray:
    """Rotations (T, persons, 21, 6) to go with a body: any numbers."""
    return (
        np.random.default_rng([seed, persons, 6])
        .uniform(-1, 1, (frames, persons, N_ROTATIONS, 6))
        .astype(np.float32)
    )


def motion(frames: int, persons: int = 2, seed: int = 0) -> np.ndarray:
    """A raw motion (T, 192 * persons) of a scene of its own."""
    return join_columns(body(frames, persons, seed), sixes(frames, persons, seed))


def swapped(raw: np.ndarray) -> np.ndarray:
    """The same two-person motion with the persons stored the other way round."""
    return np.roll(raw, raw.shape[1] // 2, axis=1)


def in_the_mirror(raw: np.ndarray) -> np.ndarray:
    """A raw motion (T, 192 * persons) in the mirror x = 0; its rotations only change sides."""
    positions, rotations = split_columns(raw)
    return join_columns(
        positions[:, :, MIRROR] * np.array([-1, 1, 1], raw.dtype), rotations[:, :, MIRROR[1:] - 1]
    )


def write_data(
    root: Path,
    motions: Mapping[str, np.ndarray] | Iterable[str],
    captions: Mapping[str, Sequence[str]] | None = None,
    groups: Mapping[str, str] | None = None,
) -> Path:
    """A data folder of these motions, or of small ones with these ids.

    Without captions each motion gets a caption of its own.
    """
    if not isinstance(motions, Mapping):
        motions = {
            name: motion(12 + 2 * number, seed=number) for number, name in enumerate(motions)
        }
    (root / "motions").mkdir(parents=True)
    (root / "texts").mkdir()
    for name, raw in motions.items():
        np.save(root / "motions" / f"{name}.npy", raw)
        (root / "texts" / f"{name}.txt").write_text(
            "\n".join((captions or {}).get(name, (f"scene {name}",))) + "\n"
        )
    (root / "train.txt").write_text("".join(f"{name}\n" for name in motions))
    if groups is not None:
        (root / "groups.csv").write_text(
            "id,group\n" + "".join(f"{name},{group}\n" for name, group in groups.items())
        )
    return root


def data_settings(root: Path, **config: object) -> DataConfig:
    """Settings of a data folder, with what is made from it in folders beside it."""
    beside = {"work_dir": root.parent / "work", "folds_dir": root.parent / "folds"}
    return DataConfig(**{"data_dir": root, **beside, **config})


def data_flags(root: Path) -> list[str]:
    """The same as flags of a script."""
    made = data_settings(root)
    return [
        "--data_dir",
        str(root),
        "--work_dir",
        str(made.work_dir),
        "--folds_dir",
        str(made.folds_dir),
        "--jobs",
        "1",
    ]


def load(root: Path, **config: object) -> TrainingData:
    """The training data of a data folder."""
    return load_training(data_settings(root, **config), jobs=1)


DPI = 130


def pixels(path: Path) -> np.ndarray:
    """(height, width, 3) of a PNG, 0 to 1."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    return image.imread(path, format="png")[..., :3]


def check(path: Path, height: float | None = None) -> np.ndarray:
    """Asserts that a picture is ten inches wide, not empty, and white at its edges; returns it."""
    found = pixels(path)
    assert found.shape[1] == 10 * DPI
    assert height is None or abs(found.shape[0] - height * DPI) <= 1
    drawn = (found < 0.98).any(axis=-1)
    assert 0.01 < drawn.mean() < 0.9, f"{path.name} is empty or full: {drawn.mean():.1%}"
    for edge in (drawn[:2], drawn[-2:], drawn[:, :2], drawn[:, -2:]):
        assert not edge.any(), f"something is cut off at an edge of {path.name}"
    return found


def has(found: np.ndarray, color: str) -> bool:
    """Whether a color ("#RRGGBB") is somewhere on a picture, unmixed."""
    wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return bool((np.abs(found - wanted).max(axis=-1) < 0.004).any())


PIPE = "WAITING_TOWER_PIPE"


DEFAULT_DROP = 0.5


class WaitingTower(MotionTransformer):
    def __init__(self, config: MotionConfig, persons: int, columns: dict[str, slice]):
        super().__init__(config, persons, columns)
        if PIPE in os.environ and config.token_drop != DEFAULT_DROP:
            Path(os.environ[PIPE]).write_text("waiting")
            signal.pause()


DATA, FOLDS = training_data(), folds()


def unit(rng, *shape):
    drawn = rng.normal(size=shape)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def made_run(folder, name, seed=0, folds=(0, 1), full=False, sharp=1.0, data=DATA, found=FOLDS):
    """An untrained run: caption embeddings are `sharp` times their motion's, plus noise."""
    run = resolve_run(config(out_dir=folder, run_name=name), {}, data, found)
    create_run_dir(run)
    rng = np.random.default_rng(seed)
    for fold in folds:
        held = found.val_idx(fold)
        motion_idx = np.array(
            [place for place, row in enumerate(held) for _ in DATA.training.captions[row]]
        )
        motion = unit(rng, len(held), 6)
        text = sharp * motion[motion_idx] + unit(rng, len(motion_idx), 6)
        text /= np.linalg.norm(text, axis=1, keepdims=True)
        oof.save_out_of_fold(
            run.fold_dir(fold) / "oof.npz",
            OutOfFold(np.array(DATA.training.ids)[held], held, motion, text, motion_idx),
        )
    if full:
        (run.folder / "full").mkdir()
        (run.folder / "full" / "done.json").write_text("{}")
    return run


CAPTIONS = [
    "one waves",
    "the first person walks to the other and waves at them with the left hand",
    "both bow",
    "one waves",
]


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "one",
    "the",
    "first",
    "person",
    "walks",
    "to",
    "other",
    "and",
    "waves",
    "both",
    "bow",
]


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def saved_bert(folder, seed=0):
    import transformers

    torch.manual_seed(seed)
    about = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=24,
    )
    transformers.BertModel(about).save_pretrained(folder)
    folder.joinpath("vocab.txt").write_text("\n".join(WORDS) + "\n")
    folder.joinpath("tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizerFast"})
    )
    return folder


def open_clip_tower(context=77, **values):
    import open_clip

    torch.manual_seed(0)
    whole = {
        "width": 64,
        "heads": 2,
        "layers": 2,
        "output_dim": 24,
        "context_length": context,
    } | values
    return open_clip.transformer.TextTransformer(**whole).eval(), open_clip.get_tokenizer(
        "ViT-B-32"
    )


def epoch_stats(epoch=1, seconds=1.0, **values):
    return EpochStats(epoch, seconds, 1e-3, 0.07, 1.0, **values)


def scored(monkeypatch, scores):
    """Makes validation say these scores, whatever the model."""
    left = iter(scores)

    def validate(*args):
        return replace(args[-1], val_loss=1.0, score=next(left), error=0.1, t2m_r1=0.5, spread=0.5)

    monkeypatch.setattr(validate_module, "validate", validate)


class KilledError(Exception):
    pass


def killed_after(monkeypatch, name, count):
    """Makes the run die after save_checkpoint wrote the `count`-th file that starts with `name`."""
    real, left = checkpoints.save_checkpoint, [count]

    def save(path, content):
        real(path, content)
        left[0] -= path.name.startswith(name)
        if left[0] == 0:
            raise KilledError

    monkeypatch.setattr(checkpoints, "save_checkpoint", save)


def same_content(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_content(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_content, one, other))
    return one == other


STYLED = {
    "proj_out.emb_layers.1.weight": "2W T",
    "proj_out.emb_layers.1.bias": "2W",
    "proj_out.norm.weight": "W",
    "proj_out.norm.bias": "W",
    "proj_out.out_layers.2.weight": "W W",
    "proj_out.out_layers.2.bias": "W",
}


SELF_ATTENTION = {
    "norm.weight": "W",
    "norm.bias": "W",
    "query.weight": "W W",
    "query.bias": "W",
    "key.weight": "W W",
    "key.bias": "W",
    "value.weight": "W W",
    "value.bias": "W",
} | STYLED


CROSS_ATTENTION = SELF_ATTENTION | {
    "text_norm.weight": "L",
    "text_norm.bias": "L",
    "key.weight": "W L",
    "value.weight": "W L",
}


FEED_FORWARD = {
    "linear1.weight": "H W",
    "linear1.bias": "H",
    "linear2.weight": "W H",
    "linear2.bias": "W",
} | STYLED


TEXT_LAYER = {
    "self_attn.in_proj_weight": "3L L",
    "self_attn.in_proj_bias": "3L",
    "self_attn.out_proj.weight": "L L",
    "self_attn.out_proj.bias": "L",
    "linear1.weight": "8L L",
    "linear1.bias": "8L",
    "linear2.weight": "L 8L",
    "linear2.bias": "L",
    "norm1.weight": "L",
    "norm1.bias": "L",
    "norm2.weight": "L",
    "norm2.bias": "L",
}


MOTIONDIFFUSE_USED = {
    "sequence_embedding": "196 W",
    "joint_embed.weight": "W D",
    "joint_embed.bias": "W",
    "time_embed.0.weight": "T W",
    "time_embed.0.bias": "T",
    "time_embed.2.weight": "T T",
    "time_embed.2.bias": "T",
}


MOTIONDIFFUSE_TEXT = {
    "clip.positional_embedding": "77 512",
    "clip.text_projection": "512 512",
    "clip.visual.conv1.weight": "768 3 32 32",
    "text_pre_proj.weight": "L 512",
    "text_pre_proj.bias": "L",
    "text_ln.weight": "L",
    "text_ln.bias": "L",
    "text_proj.0.weight": "T L",
    "text_proj.0.bias": "T",
}


MDM_SELF = {
    "self_attn.in_proj_weight": "3W W",
    "self_attn.in_proj_bias": "3W",
    "self_attn.out_proj.weight": "W W",
    "self_attn.out_proj.bias": "W",
    "linear1.weight": "H W",
    "linear1.bias": "H",
    "linear2.weight": "W H",
    "linear2.bias": "W",
    "norm1.weight": "W",
    "norm1.bias": "W",
    "norm2.weight": "W",
    "norm2.bias": "W",
}


MDM_CROSS = {
    "multihead_attn.in_proj_weight": "3W W",
    "multihead_attn.in_proj_bias": "3W",
    "multihead_attn.out_proj.weight": "W W",
    "multihead_attn.out_proj.bias": "W",
    "norm3.weight": "W",
    "norm3.bias": "W",
}


MDM_OTHER = {
    "input_process.poseEmbedding.weight": "W D",
    "input_process.poseEmbedding.bias": "W",
    "sequence_pos_encoder.pe": "5000 1 W",
    "embed_timestep.sequence_pos_encoder.pe": "5000 1 W",
    "embed_timestep.time_embed.0.weight": "W W",
    "embed_timestep.time_embed.0.bias": "W",
    "embed_timestep.time_embed.2.weight": "W W",
    "embed_timestep.time_embed.2.bias": "W",
    "embed_text.weight": "W 512",
    "embed_text.bias": "W",
    "output_process.poseFinal.weight": "D W",
    "output_process.poseFinal.bias": "D",
}


def listed(layers: int, prefix: str, tensors: dict[str, str]) -> dict[str, str]:
    return {
        f"{prefix.format(layer)}{name}": shape
        for layer in range(layers)
        for name, shape in tensors.items()
    }


def motiondiffuse_shapes(layers: int) -> dict[str, str]:
    block = "temporal_decoder_blocks.{}."
    used = (
        MOTIONDIFFUSE_USED
        | listed(layers, block + "sa_block.", SELF_ATTENTION)
        | listed(layers, block + "ffn.", FEED_FORWARD)
    )
    text = MOTIONDIFFUSE_TEXT | listed(4, "textTransEncoder.layers.{}.", TEXT_LAYER)
    return (
        used
        | listed(layers, block + "ca_block.", CROSS_ATTENTION)
        | text
        | {"out.weight": "D W", "out.bias": "D"}
    )


def mdm_shapes(layers: int, half: str) -> dict[str, str]:
    return MDM_OTHER | listed(
        layers, f"seqTrans{half}.layers.{{}}.", MDM_SELF | (MDM_CROSS if half == "Decoder" else {})
    )


def made(
    shapes: dict[str, str], width: int, hidden: int, inputs: int, flat: bool = False
) -> dict[str, Tensor]:
    """Random tensors of these shapes; flat: each holds one number, so a large file is small."""
    of = {"W": width, "H": hidden, "T": 4 * width, "D": inputs, "L": 256 if flat else 8}

    def size(word: str) -> int:
        digits = word.rstrip("WHTDL")
        return int(digits or 1) * of.get(word[len(digits) :], 1)

    draw = torch.Generator().manual_seed(1)
    sizes = {name: [size(word) for word in shape.split()] for name, shape in shapes.items()}
    if flat:
        return {
            name: torch.tensor(number / 1000).expand(sizes[name])
            for number, name in enumerate(sizes, start=1)
        }
    return {name: 0.3 * torch.randn(own, generator=draw) for name, own in sizes.items()}


def motiondiffuse(
    width: int = 16, hidden: int = 32, inputs: int = 263, layers: int = 2, flat: bool = False
) -> dict[str, Tensor]:
    return made(motiondiffuse_shapes(layers), width, hidden, inputs, flat)


def mdm(
    half: str = "Decoder",
    width: int = 16,
    hidden: int = 32,
    inputs: int = 263,
    layers: int = 2,
    flat: bool = False,
):
    return made(mdm_shapes(layers, half), width, hidden, inputs, flat)


def make_run(folder, chosen, data):
    return Run(
        folder / "run",
        chosen,
        {},
        data.fingerprint,
        "folds-a",
        data.store.config,
        data.store.persons,
    )


def fold_context(run, data, fold=0, context=None, split=None):
    """A fold of motions in memory, ready to be trained."""
    return FoldContext(
        run, fold, data, split or folds(), context or workplace(run.config, data), NoTower()
    )


def fit_fold(folder, fold=0, data=None, **values):
    """Trains one fold of 20 motions in memory."""
    chosen, data = config(**values), data or training_data()
    run = make_run(folder, chosen, data)
    score = fit.fit(fold_context(run, data, fold))
    return run, score


def best(run, fold=0):
    return checkpoints.load_checkpoint(checkpoints.best_checkpoint(run.fold_dir(fold)), CPU)


class MeanOfFrames(torch.nn.Module):
    """The least that is a tower."""

    def __init__(self, config, persons, columns):
        super().__init__()
        self.dim = features_width(2)

    def forward(self, batch: MotionBatch) -> Tensor:
        return batch.frames.mean(dim=(1, 2))


def write_split_joints(
    root: Path,
    ids: Sequence[str],
    entries: Sequence[object] | None = None,
    held_out: Sequence[object] = (),
) -> Path:
    """A data folder in the layout of the SGAR description, with 20 frames or more for each id.

    entries, held_out: the ids as gar_train.json and gar_val.json write them.
    """
    for seed, name in enumerate(ids):
        positions = body(20 + seed, persons=1, seed=seed)[:, 0]
        (root / "split_joints" / name).mkdir(parents=True)
        for stream, joints in SMPL_STREAMS.items():
            np.save(root / "split_joints" / name / f"{stream}.npy", positions[:, joints])
    write_gar_json(root / "texts/gar_train.json", ids if entries is None else entries)
    if held_out:
        write_gar_json(root / "texts/gar_val.json", held_out)
    return root


def write_gar_json(path: Path, ids: Sequence[object]) -> None:
    """A GAR file with a caption and all five part texts for each id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {name: dict.fromkeys(PARTS, f"moves like {name}") for name in ids}
    entries = [
        {"id": name, "caption": f"scene {name}", "part_descriptions": parts[name]} for name in ids
    ]
    path.write_text(json.dumps(entries))


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A wheel with one empty module."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    contents = {
        f"{name}.py": "",
        f"{about}/METADATA": "\n".join(lines) + "\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*contents, f"{about}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in (contents | {f"{about}/RECORD": record}).items():
            archive.writestr(path, text)
