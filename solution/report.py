"""Draws what runs learned: `python solution/report.py --run NAME`.

Writes to runs/<name>/report/: index.html, which shows queries and how their ranked motions move; curves of the training; what [CLS]
and part tokens attend to; the qualitative analysis of the held-out motions (heatmap, retrieval, action words, t-SNE, similarities,
failures). Needs the finished run and its data, no training.
"""

import sys
from collections.abc import Sequence

from motret import cli, demo
from motret.config import ReportSettings


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    settings = cli.parse(ReportSettings, args, __doc__)
    demo.make_missing(args, argv, runs=True)
    from motret import dataset, folds, reporting  # torch is slow to import: --help and a wrong flag answer without it

    data = dataset.load_training(settings.data, settings.machine.jobs)
    found = folds.read(data, settings.data.folds_dir)
    for run in reporting.choose(settings, data, found):
        print(f"{run.name}: report in {reporting.write(run, data, found, settings)}")
    if (submitted := reporting.write_submission(settings, data, found)) is not None:
        print(f"latest submission: {submitted}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
