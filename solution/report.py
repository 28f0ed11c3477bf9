"""Draws what runs learned: `python solution/report.py --run NAME`.

Writes to runs/<name>/report/: index.html, which shows queries and how their ranked motions move, and curves of the training, both of
all folds; of the first fold (--fold K: of another, --all_folds: of each) what [CLS] and part tokens attend to and the qualitative
analysis of its motions (heatmap, retrieval, action words, t-SNE, similarities, failures). Needs the finished run and its data, no
training.
"""

import functools
import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import ReportConfig
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    config = cli.parse(ReportConfig, args, __doc__)
    demo.make_missing(args, argv, runs=True)
    from motret.data import dataset, folds
    from motret.report import (
        page,
        run_report,  # torch is slow to import: --help and a wrong flag answer without it
    )

    data = dataset.load_training(config.data, config.machine.jobs)
    found = folds.read_folds(data, config.data.folds_dir)
    chosen, read = (
        run_report.choose_report_runs(config, data, found),
        functools.cache(page.read_packed_motion),
    )  # runs share their motions
    if any(len(run_report.finished_models(run)) > 1 for run in chosen) and config.fold is None and not config.all_folds:
        print("attention and analysis of the first finished fold of each run; --all_folds draws every one")
    for run in chosen:
        print(f"{run.name}: report in {run_report.write_run_report(run, data, found, config, read)}")
    if (submitted := run_report.write_submission_report(config, data, found)) is not None:
        print(f"latest submission: {submitted}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
