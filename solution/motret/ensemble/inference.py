"""Models asked again after training: what they say of the queries, of their candidates, and of a bank of training captions."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from motret.config.base import MachineConfig
from motret.config.training import TextConfig
from motret.data import caption_mirror, features, inputs
from motret.data.batching import MotionTensors
from motret.data.dataset import TestData, TrainingData
from motret.data.feature_store import FeatureStore
from motret.data.folds import Folds
from motret.data.parts import part_texts
from motret.ensemble import members, tta
from motret.ensemble.members import Member
from motret.ensemble.tta import TtaView, ViewedMotions, ViewEmbeddings
from motret.evaluation.local_score import ZScore
from motret.models import embed, registry, text_tower
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints, oof
from motret.runs.run import Run
from motret.utils import device


@dataclass(frozen=True)
class GalleryEmbeddings:
    """What one model says of a test gallery: vectors motion (G, v), bank (B, v), and query (Q, v), the mean of each query's captions.

    plain_query: (Q, d) the first block of the query vectors, without views.
    """

    scale: ZScore
    motion: np.ndarray
    query: np.ndarray
    bank: np.ndarray | None
    plain_query: np.ndarray

    def plain(self, scale: ZScore) -> "GalleryEmbeddings":
        """The same without its views, on the scale of the plain similarities."""
        return GalleryEmbeddings(scale, self.motion[:, : self.plain_query.shape[1]], self.plain_query, None, self.plain_query)

    def similarity(self, which: str, columns: slice) -> np.ndarray:
        """Of the queries or the bank ("query" | "bank") to some motions, on the member's scale."""
        return self.scale(getattr(self, which) @ self.motion[columns].T)


class Encoder:
    """Opens models and keeps what they have in common: the device, the text towers, what frozen ones say of the training captions.

    training: the captions of all training motions, each once; they are embedded together, as training does, whichever are asked for.
    """

    def __init__(self, machine: MachineConfig, work_dir: Path, captions: Sequence[Sequence[str]]):
        self.device, self.cache = device.choose_device(machine.device), work_dir / "text"
        self.training = distinct_captions(captions)
        self.towers: dict[TextConfig, text_tower.TextTower] = {}
        self.banks: dict[tuple[TextConfig, bool, bool], inputs.CaptionBank] = {}

    def tower(self, config: TextConfig) -> text_tower.TextTower:
        """The text tower of these settings, loaded once."""
        if config not in self.towers:
            self.towers[config] = registry.make_text_tower(config)
        return self.towers[config]

    def model(self, run: Run, part: int | None) -> DualEncoder:
        """The model of one fold, or of all motions (None)."""
        columns = features.feature_layout(run.persons, run.features)
        return checkpoints.load_model(run, part, columns, self.tower(run.config.text), self.device)[0]

    def bank(self, run: Run, mirrored: bool = False) -> inputs.CaptionBank:
        """The training captions, ready for the models of a run; with a part weight what they say of parts too.

        mirrored: what those of them that speak of sides say in the mirror, instead.
        """
        key = run.config.text, bool(run.part_weight), mirrored
        if key not in self.banks:
            self.banks[key] = self._make_bank(run, list(_captions_to_mirror(self.training).values()) if mirrored else self.training)
        return self.banks[key]

    def _make_bank(self, run: Run, captions: Sequence[str]) -> inputs.CaptionBank:
        spoken = [*captions, *part_texts.all_part_texts(captions)] if run.part_weight else captions
        frozen = not text_tower.is_trained(run.config.text)
        return embed.make_caption_bank(spoken, self.tower(run.config.text), frozen, self.cache, self.device).to(self.device)

    def captions(self, model: DualEncoder, run: Run, captions: Sequence[str], bank: inputs.CaptionBank) -> np.ndarray:
        """(C, v) vectors of captions of a bank; with a part weight they hold what captions say of parts too."""
        vectors = embed.embed_captions(model, bank, bank.indices(captions).to(self.device), self.precision(run))
        if not run.part_weight:
            return vectors
        return oof.weighted_text_vectors(vectors, *embed.embed_caption_parts(model, bank, captions, self.precision(run)), run.part_weight)

    def in_view(self, model: DualEncoder, run: Run, captions: Sequence[str], plain: np.ndarray, view: TtaView, known: bool) -> np.ndarray:
        """(C, v) vectors of captions as a view tells them, zero for a caption that it cannot tell (see `tta.scale_views`).

        plain: (C, v) theirs; known: they are training captions.
        """
        if view.mirror is None:
            return plain
        vectors = plain.copy()
        vectors[[caption_mirror.mirror_caption(caption) is None for caption in captions]] = 0
        turned = _captions_to_mirror(captions)
        if turned:
            bank = self.bank(run, mirrored=True) if known else self._make_bank(run, list(turned.values()))
            said = [turned[caption] for caption in captions if caption in turned]
            vectors[[caption in turned for caption in captions]] = self.captions(model, run, said, bank)
        return vectors

    def with_views(
        self, model: DualEncoder, run: Run, part: int | None, member: Member, captions: Sequence[str], known: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """(C, v) vectors of captions, and these with what they say in the views of a member. known: they are training captions."""
        plain = self.captions(model, run, captions, self.bank(run) if known else self._make_bank(run, captions))
        told = [self.in_view(model, run, captions, plain, view, known) for view in member.views]
        return plain, tta.scale_views([plain, *told], member.deviations(part))

    def motions(
        self, model: DualEncoder, run: Run, store: FeatureStore, view: TtaView | None = None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """(M, v) vectors of the motions of a store, all or those in `rows` (M,), as they are or in a view."""
        config, rows = run.config.motion, np.arange(len(store.ids)) if rows is None else rows
        motions = MotionTensors(store, config, self.device) if view is None else ViewedMotions(store, config, self.device, view)
        vectors = embed.embed_motions(model, motions, rows, self.precision(run))
        return (
            oof.concat_part_vectors(vectors, embed.embed_motion_parts(model, motions, rows, self.precision(run)))
            if run.part_weight
            else vectors
        )

    def precision(self, run: Run) -> contextlib.AbstractContextManager:
        """What a run's models compute in."""
        return device.autocast(self.device, device.uses_bfloat16(run.config.fit.amp, self.device))

    def bank_of_fold(self, member: Member, fold: int, captions: Sequence[str]) -> np.ndarray:
        """(C, v) what the model that has not seen a fold says of captions."""
        run = member.folds[fold]
        return self.with_views(self.model(run, fold), run, fold, member, captions)[1]

    def keep_views(self, member: Member, data: TrainingData, folds: Folds) -> None:
        """Makes and keeps what a member's models say of the motions they had not seen in its views, but for what is kept already.

        data: the training motions as the member sees them.
        """
        for fold, run in member.folds.items():
            plain = member.plain_vectors(fold)
            of = {view.name: tta.view_cache_key(run, fold, view, *plain) for view in member.views}
            stale = [
                view for view in member.views if (kept := tta.load_view_embeddings(run, fold, view)) is None or kept.of != of[view.name]
            ]
            model = self.model(run, fold) if stale else None
            rows = folds.val_idx(fold)
            captions = [caption for row in rows for caption in data.training.captions[row]]
            for view in stale:
                told = self.in_view(model, run, captions, plain[0], view, known=True)
                shown = self.motions(model, run, data.store, view, rows)
                there = told.any(axis=1)
                plainly = ZScore.of(plain[0][there] @ plain[1].T).deviation if there.any() else 1.0
                deviation = ZScore.of(told[there] @ shown.T).deviation / plainly if there.any() else 1.0
                tta.save_view_embeddings(run, fold, view, ViewEmbeddings(told, shown, deviation, of[view.name]))

    def test(self, member: Member, test: TestData, with_bank: bool = False) -> list[GalleryEmbeddings]:
        """What each model of a member says of the test, and of the bank of all training captions where it is asked for."""
        asked = [caption for query in test.queries for caption in query.captions]
        ends = np.cumsum([len(query.captions) for query in test.queries])[:-1]
        scales, found = members.model_scales(member), []
        for run, part in member.models:
            model = self.model(run, part)
            motion = np.concatenate([self.motions(model, run, test.store, view) for view in (None, *member.views)], axis=1)
            said = self.with_views(model, run, part, member, asked, known=False)
            plain, query = (np.stack([own.mean(axis=0) for own in np.split(vectors, ends)]) for vectors in said)
            bank = self.with_views(model, run, part, member, self.training)[1] if with_bank else None
            found.append(GalleryEmbeddings(scales[part], motion, query, bank, plain))
        return found


def mean_similarity(told: Sequence[GalleryEmbeddings], which: str, columns: slice) -> np.ndarray:
    """A member's similarity, the mean over its models, of the queries or the bank to some motions of the gallery."""
    return np.mean([one.similarity(which, columns) for one in told], axis=0)


def without_views(told: Sequence[GalleryEmbeddings], member: Member) -> list[GalleryEmbeddings]:
    """What the models of a member say plainly."""
    if not member.views:
        return list(told)
    scales = members.model_scales(replace(member, views=()))
    return [one.plain(scales[part]) for one, (_, part) in zip(told, member.models, strict=True)]


def _captions_to_mirror(captions: Sequence[str]) -> dict[str, str]:
    """Those captions that are told otherwise in the mirror, and how."""
    return {caption: told for caption, told in caption_mirror.mirror_captions(captions).items() if told != caption}


def distinct_captions(captions: Sequence[Sequence[str]]) -> list[str]:
    """A bank of captions, each once."""
    return sorted({caption for own in captions for caption in own})
