"""Draws figures and a web page of each run.

    python solution/report.py
    python solution/report.py --run NAME

Writes to runs/<name>/report/: index.html with queries and their ranked motions, moving, and the
training curves, both of all folds. Of the first finished fold (--fold K: of another, --all_folds:
of each) it draws the attention of [CLS] and part tokens and the qualitative analysis (heatmap,
retrieval, action words, t-SNE, similarities, failures). Needs a finished run and its data.
"""

import functools
import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import ReportConfig
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv)
    config = cli.parse(ReportConfig, args, __doc__)
    if is_demo:
        demo.make_missing(config, needs_runs=True)
    from motret.data import dataset, folds
    from motret.report import page, run_report  # torch imports slowly, and --help needs none of it

    data = dataset.load_training(config.data, config.machine.jobs)
    split = folds.read_folds(data, config.data.folds_dir)
    runs = run_report.choose_report_runs(config, data, split)
    read_motion = functools.cache(page.read_packed_motion)  # runs share their motions
    one_of_many = config.fold is None and not config.all_folds
    if one_of_many and any(len(run_report.finished_models(run)) > 1 for run in runs):
        print("attention and analysis of the first finished fold of each run; --all_folds: of all")
    for run in runs:
        report = run_report.write_run_report(run, data, split, config, read_motion)
        print(f"{run.name}: report in {report}")
    if submission := run_report.write_submission_report(config, data, split):
        print(f"latest submission: {submission}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
