"""Models asked again after training: what they say of the queries, of their candidates, and of a bank of training captions."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motret import builder, embedding, features, members, part_texts, runs, text, workplace
from motret.batches import Motions
from motret.config import MachineSettings, TextSettings
from motret.dataset import TestData
from motret.members import Member
from motret.model import DualEncoder
from motret.rank import Scale
from motret.runs import Run
from motret.store import Store


@dataclass(frozen=True)
class Told:
    """What one model says of a test gallery: vectors motion (G, v), bank (B, v), and query (Q, v), the mean of each query's captions."""

    scale: Scale
    motion: np.ndarray
    query: np.ndarray
    bank: np.ndarray | None

    def similarity(self, which: str, columns: slice) -> np.ndarray:
        """Of the queries or the bank ("query" | "bank") to some motions, on the member's scale."""
        return self.scale(getattr(self, which) @ self.motion[columns].T)


class Encoder:
    """Opens models and keeps what they have in common: the device, the text towers, what frozen ones say of the training captions.

    training: the captions of all training motions, each once; they are embedded together, as training does, whichever are asked for.
    """

    def __init__(self, machine: MachineSettings, work_dir: Path, captions: Sequence[Sequence[str]]):
        self.device, self.cache = workplace.choose_device(machine.device), work_dir / "text"
        self.training = distinct(captions)
        self.towers: dict[TextSettings, text.ClipTower | text.HfTower] = {}
        self.banks: dict[tuple[TextSettings, bool], text.CaptionBank] = {}

    def tower(self, settings: TextSettings) -> text.ClipTower | text.HfTower:
        """The text tower of these settings, loaded once."""
        if settings not in self.towers:
            self.towers[settings] = text.make_tower(settings)
        return self.towers[settings]

    def model(self, run: Run, part: int | None) -> DualEncoder:
        """The model of one fold, or of all motions (None)."""
        columns = features.layout(run.persons, run.features)
        return builder.open_model(run, part, columns, self.tower(run.settings.text), self.device)[0]

    def bank(self, run: Run) -> text.CaptionBank:
        """The training captions, ready for the models of a run; with a part weight what they say of parts too."""
        key = run.settings.text, bool(run.part_weight)
        if key not in self.banks:
            self.banks[key] = self._make_bank(run, self.training)
        return self.banks[key]

    def _make_bank(self, run: Run, captions: Sequence[str]) -> text.CaptionBank:
        spoken = [*captions, *part_texts.listed(captions)] if run.part_weight else captions
        frozen = not text.trains(run.settings.text)
        return text.make_bank(spoken, self.tower(run.settings.text), frozen, self.cache, self.device).to(self.device)

    def captions(self, model: DualEncoder, run: Run, captions: Sequence[str], bank: text.CaptionBank) -> np.ndarray:
        """(C, v) vectors of captions of a bank; with a part weight they hold what captions say of parts too."""
        vectors = embedding.embed_captions(model, bank, bank.rows(captions).to(self.device), self.precision(run))
        if not run.part_weight:
            return vectors
        return runs.with_named_parts(vectors, *embedding.embed_caption_parts(model, bank, captions, self.precision(run)), run.part_weight)

    def motions(self, model: DualEncoder, run: Run, store: Store) -> np.ndarray:
        """(M, v) vectors of all motions of a store."""
        motions, every = Motions(store, run.settings.motion, self.device), np.arange(len(store.ids))
        vectors = embedding.embed_motions(model, motions, every, self.precision(run))
        if not run.part_weight:
            return vectors
        return runs.with_parts(vectors, embedding.embed_motion_parts(model, motions, every, self.precision(run)))

    def precision(self, run: Run) -> contextlib.AbstractContextManager:
        """What a run's models compute in."""
        return workplace.autocast(self.device, workplace.uses_bfloat16(run.settings, self.device))

    def bank_of_fold(self, member: Member, fold: int, captions: Sequence[str]) -> np.ndarray:
        """(C, v) what the model that has not seen a fold says of captions."""
        run = member.folds[fold]
        return self.captions(self.model(run, fold), run, captions, self.bank(run))

    def test(self, member: Member, test: TestData, with_bank: bool = False) -> list[Told]:
        """What each model of a member says of the test, and of the bank of all training captions where it is asked for."""
        asked = [caption for query in test.queries for caption in query.captions]
        ends = np.cumsum([len(query.captions) for query in test.queries])[:-1]
        scales, found = members.scales(member), []
        for run, part in member.models:
            model = self.model(run, part)
            motion = self.motions(model, run, test.store)
            query = self.captions(model, run, asked, self._make_bank(run, asked))
            query = np.stack([own.mean(axis=0) for own in np.split(query, ends)])
            found.append(Told(scales[part], motion, query, self.captions(model, run, self.training, self.bank(run)) if with_bank else None))
        return found


def similarity(told: Sequence[Told], which: str, columns: slice) -> np.ndarray:
    """A member's similarity, the mean over its models, of the queries or the bank to some motions of the gallery."""
    return np.mean([one.similarity(which, columns) for one in told], axis=0)


def distinct(captions: Sequence[Sequence[str]]) -> list[str]:
    """A bank of captions, each once."""
    return sorted({caption for own in captions for caption in own})
