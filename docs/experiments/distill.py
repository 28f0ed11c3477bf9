"""One network taught by several: train.py with one more loss.

    python docs/experiments/distill.py runs/A runs/B -- holistic --fold 0 --run_name student

The teachers are finished runs of the same fold and the same features. The loss is the divergence
of the student's softmax over a batch from that of the mean of the teachers' logits, from captions
to motions and back. After -- stand the arguments of train.py. `docs/ablation.md` says what came
out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "solution"))

import torch
import torch.nn.functional as F
from torch import Tensor

import train
from motret.config import cli
from motret.errors import ConfigError
from motret.models import registry
from motret.models.dual_encoder import DualEncoder
from motret.runs import checkpoints
from motret.runs.run import open_run
from motret.training import objective
from motret.training.objective import LossInputs, LossSpec

WEIGHT = 1.0
FOLD = 0


class Distillation:
    """The loss term. folders: of the teachers' runs."""

    def __init__(self, folders: Sequence[Path]):
        self.runs = [open_run(folder) for folder in folders]
        self.teachers: list[DualEncoder] = []

    def __call__(self, inputs: LossInputs) -> Tensor:
        """Divergence () of the student from the teachers, the mean of both directions."""
        self.teachers = self.teachers or self._open_teachers(inputs)
        with torch.no_grad():
            goal = torch.stack([logits(each, inputs) for each in self.teachers]).mean(dim=0)
        student = inputs.logit_scale * inputs.embeddings.caption @ inputs.embeddings.motion.T
        return (divergence(student, goal) + divergence(student.T, goal.T)) / 2

    def _open_teachers(self, inputs: LossInputs) -> list[DualEncoder]:
        columns, device = inputs.context.motions.columns, inputs.logit_scale.device
        return [
            checkpoints.load_model(
                run, FOLD, columns, registry.make_text_tower(run.config.text), device
            )[0].eval()
            for run in self.runs
        ]


def logits(teacher: DualEncoder, inputs: LossInputs) -> Tensor:
    """(C, B) of a teacher, for the student's batch as it is augmented."""
    caption = teacher.encode_captions(inputs.context.bank, inputs.batch.caption_idx)
    motion = torch.cat([teacher.encode_motions(bucket) for bucket in inputs.batch.buckets])
    return teacher.logit_scale() * caption @ motion.T


def divergence(student: Tensor, goal: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence () of the rows' softmax."""
    log_prob, log_goal = student.log_softmax(dim=1), goal.log_softmax(dim=1)
    return F.kl_div(log_prob, log_goal, log_target=True, reduction="batchmean")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if "--" not in argv or not argv.index("--"):
        raise ConfigError("distill.py", "no teachers", "name folders of runs, then --")
    split = argv.index("--")
    term = Distillation([Path(folder) for folder in argv[:split]])
    objective.LOSS_TERMS = (*objective.LOSS_TERMS, LossSpec("teachers", lambda _: WEIGHT, term))
    return train.main(argv[split + 1 :])


if __name__ == "__main__":
    sys.exit(main())
