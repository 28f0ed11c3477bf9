"""Weighs runs and writes the submission: `python solution/ensemble.py`, or with `--runs NAME ...`.

Weights and query-bank normalisation are chosen on motions that the models had not seen, and the local score is told by folds that
had no part in the choice. The submission goes to submissions/submission.csv, with a dated copy, its similarities (.npz), a JSON that
says what went in, and a row in submissions/log.csv.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import EnsembleConfig
from motret.errors import DataError
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    config = cli.parse(EnsembleConfig, args, __doc__)
    demo.make_missing(args, argv, runs=True)
    from motret.data import dataset, folds
    from motret.ensemble import run  # torch is slow to import: --help and a wrong flag answer without it

    test_dir = config.test_dir or config.data.data_dir / "test"
    if config.data.data_dir.is_dir() and not test_dir.is_dir():
        raise DataError(
            test_dir, "no test folder, so there is nothing to rank", "local scores: `python solution/validate.py oof`; --test_dir DIR"
        )
    data = dataset.load_training(config.data, config.machine.jobs)
    made = run.run_ensemble(config, data, folds.read_folds(data, config.data.folds_dir), test_dir)
    print("\n".join(made.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
