"""Trains a variant over folds.

    python solution/train.py holistic --data_dir data --fold 0
    python solution/train.py --resume runs/NAME
    python solution/train.py --resume runs/NAME --epochs 30
    torchrun --nproc_per_node 2 solution/train.py holistic

Packs features and makes folds first if they are missing. Each fold ends in runs/<name>/fold<k>/
with its best checkpoint, metrics.csv, train_log.txt and the out-of-fold embeddings that validate.py
and ensemble.py use. --resume continues a stopped run with the settings of its args.json; with more
--epochs it trains a finished run further. Under torchrun all processes train one model, each on a
card of its own: every batch is shared among them.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from motret.config import cli
from motret.config.training import TrainConfig
from motret.pipeline import demo
from motret.tuning import tuned_values


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config, sources = cli.parse_train(argv, __doc__)
    from motret.training import distributed, train  # torch imports slowly: not for --help

    with distributed.join_processes(config.machine.device) as ranks:
        config, sources = ranks.broadcast(lambda: settings_of(argv, config, sources))
        train.train_run(config, sources, plot_callback(config), ranks)
    return 0


def settings_of(
    argv: Sequence[str] | None, config: TrainConfig, sources: dict[str, str]
) -> tuple[TrainConfig, dict[str, str]]:
    """The settings of the run that the flags resume, or of a new one; and their sources."""
    from motret.training import resume

    if run_dir := resume.resumed_run_dir(config):
        return resume.resumed_settings(run_dir, config, sources)
    return new_settings(argv)


def new_settings(argv: Sequence[str] | None) -> tuple[TrainConfig, dict[str, str]]:
    """Settings of a new run and their sources: with the demo's data and tuned values, if any."""
    args, is_demo = demo.with_demo_data(argv, takes_preset=True)
    config, sources = cli.parse_train(args, __doc__)
    if is_demo:
        demo.make_missing(config)
    tuned = tuned_values.find_tuned_values(config)
    if tuned.message:
        print(tuned.message)
        config, sources = cli.parse_train(args, __doc__, tuned.values, tuned.source)
    return config, sources


def plot_callback(config: TrainConfig) -> Callable[..., Any] | None:
    """Draws figures during the training if --save_attention or --run_qualitative asks for them."""
    if not (config.snapshots.save_attention or config.snapshots.run_qualitative):
        return None
    from motret.report import snapshots  # matplotlib imports slowly

    return snapshots.make_plot_callback


if __name__ == "__main__":
    sys.exit(main())
