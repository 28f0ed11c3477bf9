"""Trains a variant over folds: `python solution/train.py holistic --data_dir data --fold 0`.

Makes packed features and folds first where they are missing. Each fold ends in runs/<name>/fold<k>/ with its best checkpoint,
metrics.csv, train_log.txt and the out-of-fold embeddings that validate.py and ensemble.py use. A stopped run goes on with
`--resume runs/NAME`, which takes its settings from args.json; `--resume runs/NAME --epochs N` trains a finished one further.
"""

import sys
from collections.abc import Callable, Sequence

from motret.config import cli
from motret.config.training import TrainConfig
from motret.pipeline import demo
from motret.tuning import tuned_values


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config, sources = cli.parse_train(argv, __doc__)
    from motret.training import resume, train  # torch is slow to import: --help and a wrong flag answer without it

    if begun := resume.resumed_run_dir(config):
        config, sources = resume.resumed_settings(begun, config, sources)
    else:
        args = demo.with_data(argv, takes_preset=True)
        config, sources = cli.parse_train(args, __doc__)
        demo.make_missing(args, argv)
        if (found := tuned_values.find_tuned_values(config)).message:
            print(found.message)
            config, sources = cli.parse_train(args, __doc__, found.values, found.source)
    train.train_run(config, sources, _plots(config))
    return 0


def _plots(config: TrainConfig) -> Callable | None:
    """What draws while folds train, where --save_attention or --run_qualitative asks for it; matplotlib is slow to import."""
    if not (config.snapshots.save_attention or config.snapshots.run_qualitative):
        return None
    from motret.report import snapshots

    return snapshots.make_plot_callback


if __name__ == "__main__":
    sys.exit(main())
