"""Splits the training motions into folds: `python solution/make_folds.py --data_dir data --folds 5`.

Motions that belong together (groups.csv; else the same captions, or nearly the same motion) share a fold, and folds are alike in
motion length; with --prefer_txt_split the data's own lists are the one split, and so is gar_val.json where the data has it and no --folds
is given. Writes folds/folds.csv (id,fold,group) and folds/folds.json, which says of which data they are.
"""

import sys
from collections.abc import Sequence

import numpy as np

from motret.config import cli
from motret.config.scripts import FoldConfig
from motret.data import dataset, folds
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    config = cli.parse(FoldConfig, args, __doc__)
    demo.make_missing(args, argv)
    data = dataset.load_training(config.data, config.machine.jobs)
    before = folds.folds_hash(config.data.folds_dir)
    lists = folds.choose_split_lists(config.data.data_dir, config.prefer_txt_split, config.folds is not None)
    made = folds.make_folds(data, config.folds or 5, config.fold_seed, config.data.folds_dir, lists)
    held = [made.val_idx(fold) for fold in range(made.count)]
    sizes = ", ".join(str(len(rows)) for rows in held)
    learned = f", {len(made.train_idx(0))} to learn from" if lists else ""
    file = config.data.folds_dir / "folds.csv"
    if lists:
        print(f"{lists[1].name} is the validation set" + ("" if config.prefer_txt_split else "; --folds K makes K folds instead"))
    print(f"{made.count} fold{'s' if made.count > 1 else ''} of {sizes} motions{learned} in {len(np.unique(made.group))} groups: {file}")
    if torn := set(made.group[held[0]]) & set(made.group[made.train_idx(0)]):
        print(f"{len(torn)} groups of motions are on both sides of the split: what they tell makes its score too good")
    if before is not None and before != made.hash:
        print("they replace other folds: runs trained on those stay, but are not ensembled with new ones")
    return 0


if __name__ == "__main__":
    sys.exit(main())
