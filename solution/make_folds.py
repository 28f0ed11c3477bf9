"""Splits the training motions into folds.

    python solution/make_folds.py --data_dir data --folds 5

Related motions (groups.csv; else motions with equal captions or nearly equal poses) are in the same
fold, and folds are alike in motion length. With --prefer_txt_split the data's own lists are the one
split, and so is gar_val.json if the data has it and --folds is not given. Writes folds/folds.csv
(id,fold,group) and folds/folds.json, which names the data they belong to.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import FoldConfig
from motret.data import dataset, folds
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv)
    config = cli.parse(FoldConfig, args, __doc__)
    if is_demo:
        demo.make_missing(config)
    data_dir, folds_dir = config.data.data_dir, config.data.folds_dir
    data = dataset.load_training(config.data, config.machine.jobs)
    hash_before = folds.folds_hash(folds_dir)
    lists = folds.choose_split_lists(data_dir, config.prefer_txt_split, config.folds is not None)
    split = folds.make_folds(data, config.folds or 5, config.fold_seed, folds_dir, lists)
    if lists:
        hint = "" if config.prefer_txt_split else "; --folds K makes K folds instead"
        print(f"{lists[1].name} is the validation set{hint}")
    print(_describe(split, has_lists=bool(lists)), folds_dir / "folds.csv")
    val_groups = set(split.group[split.val_idx(0)])
    if shared := val_groups & set(split.group[split.train_idx(0)]):
        print(f"{len(shared)} groups of motions are on both sides: the local score is too high")
    if hash_before is not None and hash_before != split.hash:
        print("they replace other folds: runs trained on those are not ensembled with new ones")
    return 0


def _describe(split: folds.Folds, has_lists: bool) -> str:
    sizes = ", ".join(str(len(split.val_idx(fold))) for fold in range(split.count))
    training = f", {len(split.train_idx(0))} to learn from" if has_lists else ""
    many, groups = "s" if split.count > 1 else "", len(set(split.group.tolist()))
    return f"{split.count} fold{many} of {sizes} motions{training} in {groups} groups:"


if __name__ == "__main__":
    sys.exit(main())
