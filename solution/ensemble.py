"""Ensembles runs and writes the submission.

    python solution/ensemble.py
    python solution/ensemble.py --runs NAME NAME

Weights and query-bank normalisation are fitted on held-out motions. The local score of each fold
comes from weights fitted on the other folds. The submission goes to submissions/submission.csv,
with a dated copy, its similarities (.npz), its members and scores (.json), and a row in
submissions/log.csv.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import EnsembleConfig
from motret.errors import DataError
from motret.pipeline import demo
from motret.utils import reading


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv)
    config = cli.parse(EnsembleConfig, args, __doc__)
    if is_demo:
        demo.make_missing(config, needs_runs=True)
    from motret.data import dataset, folds
    from motret.ensemble import run  # torch imports slowly, and --help needs none of it

    test_dir = config.test_dir or config.data.data_dir / "test"
    if reading.is_folder(config.data.data_dir) and not reading.is_folder(test_dir):
        fix = "local scores: `python solution/validate.py oof`; or give --test_dir DIR"
        raise DataError(test_dir, "no test folder, so there is nothing to rank", fix)
    data = dataset.load_training(config.data, config.machine.jobs)
    fold_split = folds.read_folds(data, config.data.folds_dir)
    result = run.run_ensemble(config, data, fold_split, test_dir)
    print("\n".join(result.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
