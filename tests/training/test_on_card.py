"""Training on a card, emulated: the numbers of the CPU, and nothing is read back within a step."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ensemble
import helpers
import report
import validate
from emulated_card import CARD, CardTensor, EmulatedCard, emulated_card
from motret.config.training import TrainConfig
from motret.data import batching
from motret.data.features import FeatureConfig
from motret.data.inputs import CaptionBank
from motret.models import embed, registry
from motret.models.text_tower import TextTower
from motret.runs import checkpoints
from motret.runs.run import Run
from motret.skeleton import PARTS
from motret.training import fit, optim
from motret.training.context import make_context
from motret.training.state import FoldState

PART_TEXTS = [
    {part: f"motion {row} told 0" if "arm" in part or row % 2 else None for part in PARTS}
    for row in range(20)
]
SCRATCH = {"text_weights": "none", "text_width": 32, "text_layers": 1}
MODELS: dict[str, dict[str, Any]] = {
    "holistic": {},
    "sgar": {"motion_tower": "part", "use_gar": True, "lambda_direction": 0.1},
    "part encoders": {"motion_tower": "part", "use_gar": True, "part_encoders": True},
    "text tower from scratch": SCRATCH | {"word_dropout": 0.2},
    "frame tower": {"motion_tower": "frame", "long_motions": "start"},
    "accumulated": {"grad_accum": 2},
    "augmented": {"crop": 0.2, "frame_mask": 0.1, "noise": 0.1, "caption_mix": 0.5},
    "one caption": {"captions": "random", "label_smoothing": 0.1},
}


def losses_of_an_epoch(
    config: TrainConfig, tower: TextTower, bank: CaptionBank, card: EmulatedCard | None = None
) -> list[float]:
    """The loss of each step of a new model. card: forgets what was read back before the first."""
    data = helpers.training_data()
    context = make_context(config, data, bank, PART_TEXTS if config.parts.use_gar else None)
    run = Run(Path(), config, {}, data.fingerprint, "folds-a", FeatureConfig(), 2)
    model = checkpoints.build_model(config, run, data.store.columns, tower, 0)
    model = model.to(context.device).train()
    optimizer = optim.make_optimizer(model, config)
    ema = optim.start_ema(model, optimizer, 0.9)
    state = FoldState(model, optimizer, context.make_scaler(), ema)
    noise = torch.Generator().manual_seed(0)
    epoch = batching.iterate_epoch(
        context.motions,
        context.table,
        np.arange(20),
        config.fit.effective_batch_size,
        batching.EpochRandom(np.random.default_rng(0), noise, noise),
        2 * config.fit.grad_accum,
        context.augmentation,
    )
    torch.manual_seed(0)
    if card is not None:
        card.reads.clear()
    losses = [fit.train_step(state, batch, context, config, 1.0)[0].total for batch in epoch]
    return [float(loss.values if isinstance(loss, CardTensor) else loss) for loss in losses]


@pytest.mark.parametrize("name", MODELS)
def test_an_epoch_on_a_card_has_the_losses_of_the_cpu_and_reads_nothing_back(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {"batch_size": 6 // MODELS[name].get("grad_accum", 1), "mirror": 0.0}
    config = helpers.config(**settings | MODELS[name])
    data, tower = helpers.training_data(), helpers.NoTower()
    bank = helpers.bank(data)
    if config.text.text_weights == "none":
        tower = registry.make_text_tower(config.text)
        captions = [caption for texts in data.training.captions for caption in texts]
        bank = embed.make_caption_bank(captions, tower, False, tmp_path, helpers.CPU)
    losses = losses_of_an_epoch(config, copy.deepcopy(tower), bank)
    use_card(monkeypatch)
    with emulated_card() as card:
        on_card = losses_of_an_epoch(config, tower, bank, card)
    assert on_card == pytest.approx(losses, rel=1e-4) and len(losses) == 3
    assert card.reads == []


def use_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every module of the package choose the emulated card."""
    for name, module in list(sys.modules.items()):
        if name.startswith("motret.") and hasattr(module, "choose_device"):
            monkeypatch.setattr(module, "choose_device", lambda _: CARD)


WAYS: dict[str, dict[str, Any]] = {
    "parts": {"use_gar": True, "motion_tower": "part", "mirror": 0.5, "speed": 1.25, "ema": 0.9},
    "fine-tuned": {"unfreeze_text": True, "wise_alpha": "auto", "captions": "random"},
}


@pytest.mark.parametrize("name", WAYS)
def test_a_card_goes_the_whole_way_to_a_submission_and_a_report(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_card(monkeypatch)
    places = [*helpers.places(), "--out_dir", str(tmp_path)]
    with emulated_card():
        assert helpers.run_training(tmp_path, "one", epochs=1, **WAYS[name]) == 0
        to_submissions = ["--submissions_dir", str(tmp_path / "submissions")]
        assert ensemble.main([*places, *to_submissions, "--views", "mirror,speed"]) == 0
        assert report.main([*places, "--run", "one"]) == 0
    submission = tmp_path / "submissions" / "submission.csv"
    assert validate.main(["submission", str(submission), helpers.places()[0]]) == 0
