"""Words and tokens as finished models see them: what late interaction is computed from."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from motret.data import batching
from motret.data.batching import MotionTensors
from motret.errors import RunError
from motret.models.dual_encoder import DualEncoder
from motret.models.embed import EMBED_BATCH_SIZE
from motret.models.text_tower import TextTower
from motret.models.token_matcher import Sequences
from motret.runs.run import Run
from motret.utils import progress


@dataclass(frozen=True, eq=False)
class CaptionWords:
    """The words of captions, each caption once. row: of each caption in `words`."""

    words: Sequences
    row: dict[str, int]

    def of(self, captions: Sequence[str]) -> Sequences:
        """Words of some of the captions, one after the other."""
        return self.words.select(torch.tensor([self.row[caption] for caption in captions]))


@torch.inference_mode()
def word_states(
    run: Run,
    tower: TextTower,
    captions: Sequence[str],
    device: torch.device,
    precision: AbstractContextManager[object],
) -> CaptionWords:
    """The states of the words of some captions. RunError for a tower that has none."""
    distinct = sorted(set(captions))
    row = {caption: position for position, caption in enumerate(distinct)}
    tower = tower.to(device).eval()
    ids, lengths = tower.tokenize(distinct)
    states: list[torch.Tensor] = [torch.empty(0)] * len(distinct)
    batches = lengths.argsort(stable=True).split(EMBED_BATCH_SIZE)
    bar = progress.progress_bar(
        batches, desc="words of captions", unit="batch", hidden=len(distinct) < 2000
    )
    with precision:
        for batch in bar:
            batch_ids = ids[batch, : int(lengths[batch].max())].to(device)
            try:
                hidden = tower.encode_words(batch_ids, lengths[batch].to(device))
            except NotImplementedError as error:
                problem = f"its text tower gives no states of words ({error})"
                raise RunError(run.folder, problem, "leave this run out") from error
            for position, of_caption in zip(batch.tolist(), hidden.cpu(), strict=True):
                states[position] = of_caption[: int(lengths[position])].half()
    return CaptionWords(Sequences.of(states), row)


@torch.inference_mode()
def motion_tokens(
    run: Run,
    model: DualEncoder,
    motions: MotionTensors,
    motion_idx: np.ndarray,
    precision: AbstractContextManager[object],
) -> Sequences:
    """The tokens of some motions (M,), of both persons. RunError for a tower that has none."""
    model.eval()
    if not hasattr(model.motion_tower, "tokens"):
        problem = f"its motion tower, {run.config.motion.motion_tower}, gives no tokens"
        raise RunError(run.folder, problem, "leave this run out")
    indices = torch.from_numpy(motion_idx)
    tokens: list[torch.Tensor] = [torch.empty(0)] * len(indices)
    with precision:
        for batch in motions.lengths[indices].argsort(stable=True).split(batching.EVAL_BATCH_SIZE):
            vectors, real = model.motion_tokens(motions.gather(indices[batch]))
            vectors, real = vectors.cpu(), real.cpu()
            for position, of_motion, mask in zip(batch.tolist(), vectors, real, strict=True):
                tokens[position] = of_motion[mask].half()
    return Sequences.of(tokens)
