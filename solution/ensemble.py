"""Averages runs and writes the submission: `python solution/ensemble.py --runs runs/NAME`.

Every finished fold of every run ranks the candidates; their similarities are put on one scale and averaged. The submission goes
to submissions/submission.csv, with a dated copy, a JSON that says what went in, and a row in submissions/log.csv.
"""

import sys
from collections.abc import Sequence

from motret import cli
from motret.config import EnsembleSettings
from motret.faults import DataFault


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = cli.parse(EnsembleSettings, argv, __doc__)
    from motret import dataset, folds, publish, rank  # torch is slow to import: --help and a wrong flag answer without it

    test_dir = settings.test_dir or settings.data.data_dir / "test"
    if settings.data.data_dir.is_dir() and not test_dir.is_dir():
        raise DataFault(
            test_dir, "no test folder, so there is nothing to rank", "local scores: `python solution/validate.py oof`; --test_dir DIR"
        )
    data = dataset.load_training(settings.data, settings.machine.jobs)
    found = folds.read(data, settings.data.folds_dir)
    chosen = rank.choose(settings.runs, settings.out_dir, data, found)
    members = [rank.with_parts(run, found, settings.part_weight) for run in chosen]
    local = rank.out_of_fold_score(members, found, settings.fold)
    kinds = {run.features for run in members}
    tests = {kind: dataset.load_test(test_dir, kind, settings.data, settings.machine.jobs) for kind in kinds}
    test = tests[members[0].features]
    similarities = rank.mean_similarities([rank.test_similarities(run, tests[run.features], settings) for run in members])
    made = publish.publish(settings, members, test.queries, rank.ranking(test, similarities), local, test_dir)
    print(f"{len(test.queries)} queries ranked by {', '.join(run.name for run in members)}: {made.file} (kept as {made.kept.name})")
    print(local.line("local"))
    if made.truth:
        print(f"true score {made.truth} ({made.truth.motions} queries)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
