"""The local validator: scores runs, checks and scores a submission, writes validation queries.

    python solution/validate.py oof
    python solution/validate.py submission submissions/submission.csv
    python solution/validate.py record submissions/FILE.csv 0.78
    python solution/validate.py compare A.csv B.csv
    python solution/validate.py make_batches

oof, the default, scores every run on its held-out motions, in one table. submission checks the form
of a submission, and scores it if the ground truth is known. record writes the leaderboard's score
into the log. compare measures how much two submissions differ. make_batches writes queries in the
layout of the test, from held-out motions.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from motret.config import cli
from motret.config.scripts import (
    CompareConfig,
    OofConfig,
    RecordConfig,
    SubmissionConfig,
    ValidationQueriesConfig,
)
from motret.data import dataset, folds, validation_queries
from motret.data.dataset import TrainingData
from motret.data.folds import Folds
from motret.evaluation import metrics, slices, submission_score
from motret.formats import submission, submission_comparison, submission_log
from motret.formats.queries import read_queries
from motret.pipeline import demo
from motret.utils import reading

if TYPE_CHECKING:
    from motret.runs.run import Run


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = with_command(cli.arguments(argv)), False
    if args[0].replace("-", "_") in ("oof", "submission", "make_batches"):
        args, is_demo = demo.with_demo_data(args)
    config = cli.parse_one_of({name: kind for name, (kind, _) in COMMANDS.items()}, args, __doc__)
    if is_demo:
        demo.make_missing(config, needs_runs=isinstance(config, OofConfig))
    run_command = dict(COMMANDS.values())[type(config)]
    run_command(config)
    return 0


def with_command(args: list[str]) -> list[str]:
    """The arguments with `oof` before them if they name no command."""
    no_command = not args or args[0].startswith("-")
    return ["oof", *args] if no_command and not {"-h", "--help"} & set(args) else args


def score_runs(config: OofConfig) -> None:
    # torch imports slowly, and the other commands need none of it
    from motret.evaluation import local_score, run_table
    from motret.runs.selection import select_runs

    data = dataset.load_training(config.data, config.machine.jobs)
    split = folds.read_folds(data, config.data.folds_dir)
    against = None
    if config.against:
        against = select_runs(
            [config.against], config.out_dir, data, split, allow_towers=config.allow_towers
        )[0]
    runs = select_runs(
        config.runs, config.out_dir, data, split, True, allow_towers=config.allow_towers
    )
    weighted = [local_score.with_part_weight(run, split, config.part_weight) for run in runs]
    scored = run_table.score_runs(weighted, split)
    print("\n".join(run_table.run_table_lines(scored, split, against, config.verbose)))
    describe_captions(config, scored[0].run, data, split)


def describe_captions(config: OofConfig, run: "Run", data: TrainingData, split: Folds) -> None:
    """Prints the slices of a run, if asked for, and whether the test's captions are like the
    held-out ones."""
    from motret.evaluation import caption_shift, local_score, run_table

    test_dir = config.data.data_dir / "test"
    if not config.slices and not reading.is_folder(test_dir):
        return
    captions = data.training.captions
    held_out = local_score.held_out_captions([run], split, captions)
    distance = slices.distance_to_other_folds(held_out, captions, split)
    if config.slices:
        scores = slices.slice_captions(held_out, distance, data, split)
        spread = slices.score_spread(held_out, slices.motion_sources(data.training, split))
        print("\n".join(["", *run_table.slice_table_lines(run.name, scores, spread)]))
    if reading.is_folder(test_dir):
        queries = read_queries(test_dir, config.data.follow_links)
        test = [caption for query in queries for caption in query.captions]
        line = caption_shift.shift_line(
            test,
            captions,
            held_out,
            distance,
            similarity=lambda fold: local_score.fold_similarity([run], fold)[0],
        )
        print(line)


def check_submission(config: SubmissionConfig) -> None:
    test_dir = config.test_dir or config.data_dir / "test"
    queries = read_queries(test_dir, config.follow_links)
    answers = submission.read_submission(config.file, queries, config.top_k)
    print(f"{config.file}: form is right, {len(answers)} queries")
    ground_truth_file = config.gt or test_dir / "gt.csv"
    if config.gt is None and not reading.is_file(ground_truth_file):
        return
    ground_truth = submission.read_ground_truth(ground_truth_file)
    if config.verbose:
        for k, recall in enumerate(metrics.recall_at(answers, ground_truth), start=1):
            print(f"  recall@{k} {recall:.4f}")
    score = submission_score.score_submission(answers, ground_truth)
    print(f"score {score} ({len(ground_truth)} queries)")


def record_score(config: RecordConfig) -> None:
    log = config.submissions_dir / "log.csv"
    print(submission_log.record_public_score(log, config.file, config.public_score))


def compare(config: CompareConfig) -> None:
    print(submission_comparison.compare_submissions(config.first, config.second).summary())
    if config.gt is None:
        return
    truth = submission.read_ground_truth(config.gt)
    scores = [
        metrics.submission_scores(
            submission.read_submission(file, top_k=submission.submission_columns(file)), truth
        )
        for file in (config.first, config.second)
    ]
    first, second = map(submission_score.mean_over_queries, scores)
    gain = submission_score.mean_over_queries(scores[0] - scores[1])
    print(f"true score {first}, {second} ({len(truth)} queries)")
    print(f"first minus second {gain.mean:+.4f} +- {gain.error:.4f}, paired by query")


def make_batches(config: ValidationQueriesConfig) -> None:
    data = dataset.load_training(config.data, config.machine.jobs)
    lists = folds.choose_split_lists(config.data.data_dir, prefer_txt=False, count_given=False)
    split, _ = folds.read_or_make_folds(data, config.data.folds_dir, 5, 0, lists)
    out = config.out or config.data.data_dir / "val"
    disjoint = validation_queries.make_validation_queries(
        data, split, config.fold, config.queries, config.candidates, config.machine.seed, out
    )
    shared = "" if disjoint else " (queries share candidates: the fold is small)"
    print(
        f"{config.queries} queries x {config.candidates} candidates "
        f"of fold {config.fold} in {out}{shared}"
    )
    command = "python solution/ensemble.py"
    flags = f"--fold {config.fold} --test_dir {out} --out ranked.csv"
    print(f"to rank them by models that were not trained on them: {command} {flags}")


COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "oof": (OofConfig, score_runs),
    "submission": (SubmissionConfig, check_submission),
    "record": (RecordConfig, record_score),
    "compare": (CompareConfig, compare),
    "make_batches": (ValidationQueriesConfig, make_batches),
}
"""Command -> its settings, and what it does."""


if __name__ == "__main__":
    sys.exit(main())
