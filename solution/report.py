"""Draws what runs learned: `python solution/report.py --run NAME`.

Writes to runs/<name>/report/: index.html, which shows queries and how their ranked motions move, and curves of the training, both of
all folds; of the first fold (--fold K: of another, --all_folds: of each) what [CLS] and part tokens attend to and the qualitative
analysis of its motions (heatmap, retrieval, action words, t-SNE, similarities, failures). Needs the finished run and its data, no
training.
"""

import functools
import sys
from collections.abc import Sequence

from motret import cli, demo
from motret.config import ReportSettings


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    settings = cli.parse(ReportSettings, args, __doc__)
    demo.make_missing(args, argv, runs=True)
    from motret import dataset, folds, page, reporting  # torch is slow to import: --help and a wrong flag answer without it

    data = dataset.load_training(settings.data, settings.machine.jobs)
    found = folds.read(data, settings.data.folds_dir)
    chosen, read = reporting.choose(settings, data, found), functools.cache(page.read)  # runs share their motions
    if any(len(reporting.finished_parts(run)) > 1 for run in chosen) and settings.fold is None and not settings.all_folds:
        print("attention and analysis of the first finished fold of each run; --all_folds draws every one")
    for run in chosen:
        print(f"{run.name}: report in {reporting.write(run, data, found, settings, read)}")
    if (submitted := reporting.write_submission(settings, data, found)) is not None:
        print(f"latest submission: {submitted}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
