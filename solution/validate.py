"""The local validator: scores runs, checks and scores a submission, draws validation queries.

python solution/validate.py oof, or no word at all, scores every run on the motions it had not seen, in one table;

python solution/validate.py submission submissions/submission.csv checks its form, and scores it where the answers are known;

python solution/validate.py record submissions/FILE.csv 0.78 writes the leaderboard's score into the log;

python solution/validate.py compare A.csv B.csv says how far two submissions differ;

python solution/validate.py make_batches draws queries in the test's own layout, from held-out motions.
"""

import sys
from collections.abc import Sequence

from motret import cli, compare, dataset, demo, folds, holdout, metrics, submission, submission_log
from motret.config import BatchesSettings, CompareSettings, OofSettings, RecordSettings, SubmissionSettings
from motret.queries import read_queries


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    kinds = {"oof": OofSettings, "submission": SubmissionSettings, "record": RecordSettings}
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or (args[0].startswith("-") and not {"-h", "--help"} & set(args)):
        args = ["oof", *args]
    if args[0] in ("oof", "submission", "make_batches", "make-batches"):
        args = demo.with_data(args)
    settings = cli.parse_one_of(kinds | {"compare": CompareSettings, "make_batches": BatchesSettings}, args, __doc__)
    demo.make_missing(args, argv, runs=isinstance(settings, OofSettings))
    does = {OofSettings: score_runs, SubmissionSettings: check_submission, BatchesSettings: make_batches}
    does[RecordSettings] = lambda said: print(submission_log.record(said.submissions_dir / "log.csv", said.file, said.public_score))
    does[CompareSettings] = lambda two: print(compare.compare(two.first, two.second).line())
    does[type(settings)](settings)
    return 0


def score_runs(settings: OofSettings) -> None:
    from motret import rank, run_table  # need torch, which is slow to import

    data = dataset.load_training(settings.data, settings.machine.jobs)
    found = folds.read(data, settings.data.folds_dir)
    against = rank.choose([settings.against], settings.out_dir, data, found)[0] if settings.against else None
    chosen = rank.choose(settings.runs, settings.out_dir, data, found, partial=True)
    scored = [rank.with_parts(run, found, settings.part_weight) for run in chosen]
    print("\n".join(run_table.lines(scored, found, against, settings.verbose)))


def check_submission(settings: SubmissionSettings) -> None:
    folder = settings.test_dir or settings.data_dir / "test"
    answers = submission.read_submission(settings.file, read_queries(folder), settings.top_k)
    print(f"{settings.file}: form is right, {len(answers)} queries")
    gt = settings.gt or folder / "gt.csv"
    if settings.gt is None and not gt.is_file():
        return
    truth = submission.read_ground_truth(gt)
    if settings.verbose:
        for k, recall in enumerate(metrics.recall_at(answers, truth), start=1):
            print(f"  recall@{k} {recall:.4f}")
    print(f"score {submission.score(answers, truth)} ({len(truth)} queries)")


def make_batches(settings: BatchesSettings) -> None:
    data = dataset.load_training(settings.data, settings.machine.jobs)
    found, _ = folds.read_or_make(data, settings.data.folds_dir, 5, 0, folds.choose_lists(settings.data.data_dir, False, False))
    out = settings.out or settings.data.data_dir / "val"
    disjoint = holdout.make_batches(data, found, settings.fold, settings.queries, settings.candidates, settings.machine.seed, out)
    shared = "" if disjoint else " (queries share candidates: the fold is small)"
    print(f"{settings.queries} queries x {settings.candidates} candidates of fold {settings.fold} in {out}{shared}")
    command = f"python solution/ensemble.py --fold {settings.fold} --test_dir {out} --out ranked.csv"
    print(f"models that have not seen them rank them by: {command}")


if __name__ == "__main__":
    sys.exit(main())
