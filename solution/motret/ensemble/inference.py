"""Models of finished runs asked again: for views, a query bank, and the test."""

import contextlib
import logging
from collections.abc import Sequence
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
from motret.ensemble import galleries, tta
from motret.ensemble.galleries import BankEmbeddings, GalleryEmbeddings, ViewEmbeddings
from motret.ensemble.members import Member
from motret.ensemble.tta import TtaView, ViewedMotions
from motret.evaluation.z_score import ZScore
from motret.models import embed, registry, text_tower
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints, oof, text_towers
from motret.runs.run import Run
from motret.utils import device

logger = logging.getLogger(__name__)


class Encoder:
    """Opens models, and keeps what they share: device, text towers, training captions.

    training_captions: of all training motions, each once. They are embedded together, as training
    does, whichever are needed.
    """

    def __init__(self, machine: MachineConfig, work_dir: Path, captions: Sequence[Sequence[str]]):
        self.device, self.cache = device.choose_device(machine.device), work_dir / "text"
        self.training_captions = distinct_captions(captions)
        self.text_towers: dict[TextConfig, text_tower.TextTower] = {}
        self.caption_banks: dict[tuple[TextConfig, bool, bool], inputs.CaptionBank] = {}

    def text_tower(self, run: Run) -> text_tower.TextTower:
        """The text tower of a run; runs of the same settings share it."""
        config = text_towers.text_config(run)
        if config not in self.text_towers:
            if config != run.config.text:
                logger.info(f"text tower of {run.name}: the one packed beside its folder")
            self.text_towers[config] = registry.make_text_tower(config)
        return self.text_towers[config]

    def load_model(self, run: Run, fold: int | None) -> DualEncoder:
        """The model of one fold, or of all motions (None)."""
        columns = features.feature_layout(run.persons, run.features)
        return checkpoints.load_model(run, fold, columns, self.text_tower(run), self.device)[0]

    def caption_bank(self, run: Run, mirrored: bool = False) -> inputs.CaptionBank:
        """The training captions as inputs of a run's models.

        With a part weight the texts of their body parts are among them. mirrored: instead those
        captions that change in the mirror, mirrored.
        """
        key = run.config.text, bool(run.part_weight), mirrored
        if key not in self.caption_banks:
            captions = (
                list(_changed_in_mirror(self.training_captions).values())
                if mirrored
                else self.training_captions
            )
            self.caption_banks[key] = self._make_bank(run, captions)
        return self.caption_banks[key]

    def embed_captions(
        self, model: DualEncoder, run: Run, captions: Sequence[str], bank: inputs.CaptionBank
    ) -> np.ndarray:
        """(C, v) embeddings of captions of a bank; with a part weight those of parts too."""
        embeddings = embed.embed_captions(model, bank, bank.indices(captions), self.autocast(run))
        if not run.part_weight:
            return embeddings
        part_embeddings, named = embed.embed_caption_parts(
            model, bank, captions, self.autocast(run)
        )
        return oof.weighted_text_vectors(embeddings, part_embeddings, named, run.part_weight)

    def embed_motions(
        self,
        model: DualEncoder,
        run: Run,
        store: FeatureStore,
        view: TtaView | None = None,
        motion_idx: np.ndarray | None = None,
    ) -> np.ndarray:
        """(M, v) embeddings of motions of a store, plain or in a view.

        motion_idx: (M,) which; by default all.
        """
        config, motion_idx = (
            run.config.motion,
            np.arange(len(store.ids)) if motion_idx is None else motion_idx,
        )
        motions = (
            MotionTensors(store, config, self.device)
            if view is None
            else ViewedMotions(store, config, self.device, view)
        )
        embeddings = embed.embed_motions(model, motions, motion_idx, self.autocast(run))
        if not run.part_weight:
            return embeddings
        part_embeddings = embed.embed_motion_parts(model, motions, motion_idx, self.autocast(run))
        return oof.concat_part_vectors(embeddings, part_embeddings)

    def autocast(self, run: Run) -> contextlib.AbstractContextManager[object]:
        """The precision that a run's models compute in."""
        dtype = device.inference_dtype(run.config.fit.amp, self.device)
        return device.autocast(self.device, dtype)

    def predict_held_out(
        self,
        member: Member,
        fold: int,
        data: TrainingData,
        folds: Folds,
        bank_captions: Sequence[str] | None,
    ) -> BankEmbeddings | None:
        """Embeddings by a fold's model, which is opened once: its views and a query bank.

        Views that are cached already are not asked for; bank_captions: None where no bank is
        needed. data: the training motions with the member's features. The views of the held-out
        motions are written to the cache.
        """
        run = member.folds[fold]
        text, motion = member.plain_embeddings(fold)
        outdated = []
        for view in member.all_views:
            cached, key = (
                tta.load_view_embeddings(run, fold, view),
                tta.view_cache_key(run, fold, view, text, motion),
            )
            if cached is None or cached.cache_key != key:
                outdated.append((view, key))
        if not outdated and bank_captions is None:
            return None
        model = self.load_model(run, fold)
        val_idx = folds.val_idx(fold)
        captions = [
            caption for motion_idx in val_idx for caption in data.training.captions[motion_idx]
        ]
        for view, key in outdated:
            view_text = self._embed_captions_in_view(model, run, captions, text, view)
            view_motion = self.embed_motions(model, run, data.store, view, val_idx)
            deviation = _relative_deviation(view_text, view_motion, text, motion)
            tta.save_view_embeddings(
                run, fold, view, ViewEmbeddings(view_text, view_motion, deviation, key)
            )
        return (
            None if bank_captions is None else self._embed_bank(model, run, bank_captions, member)
        )

    def predict_test(
        self, member: Member, test: TestData, with_bank: bool
    ) -> list[GalleryEmbeddings]:
        """The test as each model of a member embeds it, in the member's views.

        with_bank: also the query bank, which is all training captions.
        """
        captions = [caption for query in test.queries for caption in query.captions]
        ends = np.cumsum([len(query.captions) for query in test.queries])[:-1]
        scales = member.model_scales()
        plain_scales = member.model_scales(with_views=False) if member.views else scales
        embeddings = []
        for run, fold in member.models:
            model = self.load_model(run, fold)
            motion = np.concatenate(
                [
                    self.embed_motions(model, run, test.store, view)
                    for view in (None, *member.all_views)
                ],
                axis=1,
            )
            plain = self.embed_captions(model, run, captions, self._make_bank(run, captions))
            in_views = [
                self._embed_captions_in_view(model, run, captions, plain, view, from_training=False)
                for view in member.all_views
            ]
            deviations = member.deviations(fold)
            plain_query, query = (
                np.stack([of_query.mean(axis=0) for of_query in np.split(of_captions, ends)])
                for of_captions in (plain, galleries.scale_views([plain, *in_views], deviations))
            )
            bank = None
            if with_bank:
                bank_text = self._embed_bank(model, run, self.training_captions, member)
                bank = galleries.scale_views(bank_text.in_views(tuple(member.views)), deviations)
            embeddings.append(
                GalleryEmbeddings(
                    scales[fold], plain_scales[fold], motion, query, plain_query, bank
                )
            )
        return embeddings

    def _make_bank(self, run: Run, captions: Sequence[str]) -> inputs.CaptionBank:
        texts = [*captions, *part_texts.all_part_texts(captions)] if run.part_weight else captions
        frozen = not text_tower.is_trained(run.config.text)
        bank = embed.make_caption_bank(texts, self.text_tower(run), frozen, self.cache, self.device)
        return bank.to(self.device)

    def _embed_bank(
        self, model: DualEncoder, run: Run, captions: Sequence[str], member: Member
    ) -> BankEmbeddings:
        """Training captions, plain and in each of a member's views."""
        plain = self.embed_captions(model, run, captions, self.caption_bank(run))
        in_views = {
            kind: tuple(
                self._embed_captions_in_view(model, run, captions, plain, view) for view in views
            )
            for kind, views in member.views.items()
        }
        return BankEmbeddings(plain, in_views)

    def _embed_captions_in_view(
        self,
        model: DualEncoder,
        run: Run,
        captions: Sequence[str],
        plain: np.ndarray,
        view: TtaView,
        from_training: bool = True,
    ) -> np.ndarray:
        """(C, v) embeddings of captions in a view, zero for one that cannot be mirrored.

        plain: (C, v) without the view; from_training: whether they are training captions.
        """
        if view.mirror is None:
            return plain
        embeddings = plain.copy()
        embeddings[[caption_mirror.mirror_caption(caption) is None for caption in captions]] = 0
        mirrored = _changed_in_mirror(captions)
        if mirrored:
            bank = (
                self.caption_bank(run, mirrored=True)
                if from_training
                else self._make_bank(run, list(mirrored.values()))
            )
            changed = [mirrored[caption] for caption in captions if caption in mirrored]
            embeddings[[caption in mirrored for caption in captions]] = self.embed_captions(
                model, run, changed, bank
            )
        return embeddings


def distinct_captions(captions: Sequence[Sequence[str]]) -> list[str]:
    """The captions of all motions, each once, in alphabetical order."""
    return sorted({caption for of_motion in captions for caption in of_motion})


def _changed_in_mirror(captions: Sequence[str]) -> dict[str, str]:
    """Caption -> mirrored caption, of those that change in the mirror."""
    mirrored = caption_mirror.mirror_captions(captions)
    return {caption: in_mirror for caption, in_mirror in mirrored.items() if in_mirror != caption}


def _relative_deviation(
    view_text: np.ndarray, view_motion: np.ndarray, text: np.ndarray, motion: np.ndarray
) -> float:
    """Deviation of the similarities in a view, as a multiple of the plain ones'.

    Captions that the view lacks do not count.
    """
    in_view = view_text.any(axis=1)
    if not in_view.any():
        return 1.0
    plain = ZScore.of(text[in_view] @ motion.T).deviation
    return ZScore.of(view_text[in_view] @ view_motion.T).deviation / plain
