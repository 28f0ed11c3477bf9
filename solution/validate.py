"""The local validator: scores runs, checks and scores a submission, draws validation queries.

python solution/validate.py oof, or no word at all, scores every run on the motions it had not seen, in one table;

python solution/validate.py submission submissions/submission.csv checks its form, and scores it where the answers are known;

python solution/validate.py record submissions/FILE.csv 0.78 writes the leaderboard's score into the log;

python solution/validate.py compare A.csv B.csv says how far two submissions differ;

python solution/validate.py make_batches draws queries in the test's own layout, from held-out motions.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import CompareConfig, OofConfig, RecordConfig, SubmissionConfig, ValidationQueriesConfig
from motret.data import dataset, folds, validation_queries
from motret.evaluation import metrics, submission_score
from motret.formats import submission, submission_comparison, submission_log
from motret.formats.queries import read_queries
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    kinds = {"oof": OofConfig, "submission": SubmissionConfig, "record": RecordConfig}
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or (args[0].startswith("-") and not {"-h", "--help"} & set(args)):
        args = ["oof", *args]
    if args[0] in ("oof", "submission", "make_batches", "make-batches"):
        args = demo.with_data(args)
    config = cli.parse_one_of(kinds | {"compare": CompareConfig, "make_batches": ValidationQueriesConfig}, args, __doc__)
    demo.make_missing(args, argv, runs=isinstance(config, OofConfig))
    does = {OofConfig: score_runs, SubmissionConfig: check_submission, ValidationQueriesConfig: make_batches}
    does[RecordConfig] = lambda said: print(
        submission_log.record_public_score(said.submissions_dir / "log.csv", said.file, said.public_score)
    )
    does[CompareConfig] = lambda two: print(submission_comparison.compare_submissions(two.first, two.second).summary())
    does[type(config)](config)
    return 0


def score_runs(config: OofConfig) -> None:
    from motret.evaluation import local_score, run_table
    from motret.runs.run import select_runs  # need torch, which is slow to import

    data = dataset.load_training(config.data, config.machine.jobs)
    found = folds.read_folds(data, config.data.folds_dir)
    against = select_runs([config.against], config.out_dir, data, found)[0] if config.against else None
    chosen = select_runs(config.runs, config.out_dir, data, found, partial=True)
    scored = [local_score.with_part_weight(run, found, config.part_weight) for run in chosen]
    print("\n".join(run_table.run_table_lines(scored, found, against, config.verbose)))


def check_submission(config: SubmissionConfig) -> None:
    folder = config.test_dir or config.data_dir / "test"
    answers = submission.read_submission(config.file, read_queries(folder), config.top_k)
    print(f"{config.file}: form is right, {len(answers)} queries")
    gt = config.gt or folder / "gt.csv"
    if config.gt is None and not gt.is_file():
        return
    truth = submission.read_ground_truth(gt)
    if config.verbose:
        for k, recall in enumerate(metrics.recall_at(answers, truth), start=1):
            print(f"  recall@{k} {recall:.4f}")
    print(f"score {submission_score.score_submission(answers, truth)} ({len(truth)} queries)")


def make_batches(config: ValidationQueriesConfig) -> None:
    data = dataset.load_training(config.data, config.machine.jobs)
    found, _ = folds.read_or_make_folds(data, config.data.folds_dir, 5, 0, folds.choose_split_lists(config.data.data_dir, False, False))
    out = config.out or config.data.data_dir / "val"
    disjoint = validation_queries.make_validation_queries(
        data, found, config.fold, config.queries, config.candidates, config.machine.seed, out
    )
    shared = "" if disjoint else " (queries share candidates: the fold is small)"
    print(f"{config.queries} queries x {config.candidates} candidates of fold {config.fold} in {out}{shared}")
    command = f"python solution/ensemble.py --fold {config.fold} --test_dir {out} --out ranked.csv"
    print(f"models that have not seen them rank them by: {command}")


if __name__ == "__main__":
    sys.exit(main())
