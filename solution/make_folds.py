"""Splits the training motions into folds: `python solution/make_folds.py --data_dir data --folds 5`.

Motions that belong together (groups.csv; else the same captions, or nearly the same motion) share a fold, and folds are alike in
motion length. Writes folds/folds.csv (id,fold,group) and folds/folds.json, which says of which data they are.
"""

import sys
from collections.abc import Sequence

import numpy as np

from motret import cli, dataset, folds
from motret.config import FoldSettings


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = cli.parse(FoldSettings, argv, __doc__)
    data = dataset.load_training(settings.data, settings.machine.jobs)
    before = folds.made_of(settings.data.folds_dir)
    made = folds.make(data, settings.folds, settings.machine.seed, settings.data.folds_dir)
    sizes = ", ".join(str(size) for size in np.bincount(made.fold, minlength=made.count))
    print(f"{made.count} folds of {sizes} motions in {len(np.unique(made.group))} groups: {settings.data.folds_dir / 'folds.csv'}")
    if before is not None and before != made.hash:
        print("they replace other folds: runs trained on those stay, but are not ensembled with new ones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
