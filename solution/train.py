"""Trains a variant over folds: `python solution/train.py holistic --data_dir data --fold 0`.

Makes packed features and folds first where they are missing. Each fold ends in runs/<name>/fold<k>/ with its best checkpoint,
metrics.csv, train_log.txt and the out-of-fold embeddings that validate.py and ensemble.py use. A stopped run goes on with
`--resume runs/NAME`, which takes its settings from args.json; `--resume runs/NAME --epochs N` trains a finished one further.
"""

import sys
from collections.abc import Sequence

from motret import cli, demo, tuned


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings, sources = cli.parse_train(argv, __doc__)
    from motret import resume, training  # torch is slow to import: --help and a wrong flag answer without it

    if begun := resume.begun(settings):
        settings, sources = resume.settings_of(begun, settings, sources)
    else:
        args = demo.with_data(argv, takes_preset=True)
        settings, sources = cli.parse_train(args, __doc__)
        demo.make_missing(args, argv)
        if (found := tuned.find(settings)).line:
            print(found.line)
            settings, sources = cli.parse_train(args, __doc__, found.values, found.source)
    training.train(settings, sources)
    return 0


if __name__ == "__main__":
    sys.exit(main())
