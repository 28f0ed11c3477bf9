"""The finished model of one fold of a run, and what candidates are scored with besides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from motret.data.batching import MotionTensors
from motret.data.caption_mirror import mirror_caption
from motret.data.dataset import TrainingData
from motret.data.feature_store import FeatureStore
from motret.ensemble import tta
from motret.ensemble.inference import Encoder
from motret.ensemble.tta import TtaView, ViewedMotions
from motret.models.dual_encoder import DualEncoder
from motret.models.text_tower import TextTower
from motret.models.token_matcher import Sequences
from motret.rerank import tokens
from motret.rerank.tokens import CaptionWords
from motret.runs.run import Run


@dataclass(frozen=True)
class FoldModel:
    """The finished model of one fold."""

    run: Run
    fold: int
    model: DualEncoder
    encoder: Encoder

    @classmethod
    def open(cls, run: Run, fold: int, encoder: Encoder) -> "FoldModel":
        return cls(run, fold, encoder.load_model(run, fold), encoder)

    @property
    def own_text_tower(self) -> TextTower | None:
        """The text tower that was trained with this fold; None for one that all folds share."""
        return self.model.text_tower

    def words(self, captions: Sequence[str]) -> CaptionWords:
        """The words of some captions as the model reads them."""
        tower = self.own_text_tower or self.encoder.text_tower(self.run)
        precision = self.encoder.autocast(self.run)
        return tokens.word_states(self.run, tower, captions, self.encoder.device, precision)

    def tokens(
        self, store: FeatureStore, motion_idx: np.ndarray, view: TtaView | None = None
    ) -> Sequences:
        """Tokens of motions of a store, as they are or in a view."""
        config, device = self.run.config.motion, self.encoder.device
        motions = (
            MotionTensors(store, config, device)
            if view is None
            else ViewedMotions(store, config, device, view)
        )
        precision = self.encoder.autocast(self.run)
        return tokens.motion_tokens(self.run, self.model, motions, motion_idx, precision)


@dataclass(frozen=True)
class TrainingTokens:
    """What a scorer is trained on: the captions of each training motion of a fold, the tokens of
    these motions, and the words of all captions where the method needs them. name: on bars."""

    captions: Sequence[Sequence[str]]
    tokens: Sequences
    words: CaptionWords | None
    device: torch.device
    name: str

    @classmethod
    def of(
        cls,
        fold_model: FoldModel,
        data: TrainingData,
        train_idx: np.ndarray,
        words: CaptionWords | None,
        mirrored: bool,
    ) -> "TrainingTokens":
        """Those of a fold's training motions.

        mirrored: the motions and their captions also in the mirror, but for motions with a caption
        that cannot be mirrored. Where the features cannot there is no mirror, and a message.
        """
        captions = [list(data.training.captions[index]) for index in train_idx]
        motions = [fold_model.tokens(data.store, train_idx)]
        for view in tta.mirror_views(data, named=False) if mirrored else ():
            in_mirror = [list(map(mirror_caption, of_motion)) for of_motion in captions]
            whole = [index for index, texts in enumerate(in_mirror) if None not in texts]
            motions.append(fold_model.tokens(data.store, train_idx[whole], view))
            captions += [[text for text in in_mirror[index] if text] for index in whole]
        name = f"{fold_model.run.name} fold{fold_model.fold}"
        return cls(captions, Sequences.join(motions), words, fold_model.encoder.device, name)

    @property
    def flat(self) -> list[str]:
        """All captions, those of the first motion first."""
        return [caption for of_motion in self.captions for caption in of_motion]


class PairScorer(Protocol):
    """Scores captions and motions; trained on the training motions of one fold."""

    def score(self, captions: Sequence[str], tokens: Sequences) -> np.ndarray:
        """(C, M) scores of captions and the tokens of motions."""

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
