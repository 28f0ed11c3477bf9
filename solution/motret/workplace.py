"""What a run computes with: the device, its precision, and the motions and captions put where it can reach them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from motret import augment, captions, part_texts
from motret.augment import Augmentation
from motret.batches import CaptionTable, Motions
from motret.config import TrainSettings
from motret.dataset import TrainingData
from motret.faults import SettingFault
from motret.gar import Parts
from motret.precision import autocast, computes_in_bfloat16
from motret.skeleton import PARTS
from motret.text import CaptionBank


@dataclass(frozen=True)
class Workplace:
    """What all folds of a run share: the motions and captions on the device, and what to compute with."""

    device: torch.device
    amp: bool
    motions: Motions
    bank: CaptionBank
    table: CaptionTable
    similar: Tensor | None
    """(n, dim) unit vectors of the bank's captions by the text tower as published, centred; None where it starts from scratch."""
    parts: Tensor | None = None
    """(M, 5) bank rows of the part texts of each training motion, -1 where a part is undefined."""
    mirrored_parts: Tensor | None = None
    """The same of the motions in the mirror, where some are mirrored: what is said of the part on the other side, left for right.

    Of motions that are never mirrored they are the plain ones."""
    augmentation: Augmentation | None = None
    """What training batches are changed by."""
    sides: Tensor | None = None
    """(n, 2) which sides each of the bank's captions names, as a number, and the number of the opposite ones (-1 where it names none)."""

    def autocast(self) -> contextlib.AbstractContextManager:
        return autocast(self.device, self.amp)


def choose_device(wanted: str) -> torch.device:
    """The device to compute on. SettingFault where a GPU is asked for and none is there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingFault("--device", "cuda: torch sees no GPU", "use --device auto or cpu, or mend the driver")
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def uses_bfloat16(settings: TrainSettings, device: torch.device) -> bool:
    """What --amp says on this device."""
    return settings.fit.amp == "on" or (settings.fit.amp == "auto" and computes_in_bfloat16(device))


def set_up(
    settings: TrainSettings,
    data: TrainingData,
    bank: CaptionBank,
    parts: Sequence[Parts] | None = None,
    published: CaptionBank | None = None,
) -> Workplace:
    """Puts data where it is computed on.

    parts: the part texts of each training motion; published: the same captions as the bank's by the text tower as it was published,
    where the bank's own tower trains. The bank holds all captions and part texts, and where --mirror is on what they say in the mirror
    (`sides.mirror`).
    """
    device = choose_device(settings.machine.device)
    amp = uses_bfloat16(settings, device)
    bank = bank.to(device)
    mirrors = settings.augment.mirror > 0
    table = CaptionTable(data.training.captions, bank, device, settings.loss.captions == "random", mirrors)
    vectors = (published or bank).vectors
    similar = None if vectors is None else centred(vectors.to(device).float(), table.rows.unique())
    named = None if similar is None else _sides(sorted(bank.index, key=bank.index.get)).to(device)
    rows = None if parts is None else _part_rows(parts, bank).to(device)
    mirrored = _part_rows([part_texts.mirror(own) or own for own in parts], bank).to(device) if parts is not None and mirrors else None
    motions, augmentation = Motions(data.store, settings.motion, device), augment.prepare(settings, data, device, parts)
    return Workplace(device, amp, motions, bank, table, similar, rows, mirrored, augmentation, named)


def centred(vectors: Tensor, rows: Tensor) -> Tensor:
    """(n, dim) unit vectors of `vectors` (n, dim) less what those in `rows` have in common.

    Many encoders put all texts into a narrow cone: without their mean taken off, unrelated captions have cosines near 1.
    """
    unit = F.normalize(vectors, dim=-1)
    return F.normalize(unit - unit[rows].mean(dim=0), dim=-1)


def _sides(texts: Sequence[str]) -> Tensor:
    """`Workplace.sides` of these texts."""
    named = [captions.sides(text) for text in texts]
    codes = {text: code for code, text in enumerate(dict.fromkeys(side for one in named for side in (one, captions.opposite(one))))}
    return torch.tensor([[codes[one], codes[captions.opposite(one)] if one else -1] for one in named])


def _part_rows(parts: Sequence[Parts], bank: CaptionBank) -> Tensor:
    return torch.tensor([[-1 if own[part] is None else bank.index[own[part]] for part in PARTS] for own in parts])
