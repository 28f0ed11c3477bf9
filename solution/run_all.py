"""Everything: check the data, split, tune, train, rank, validate, report.

    bash run_all.sh                                   # data/, full preset; without data: a demo
    bash run_all.sh --data_dir DIR --preset fast      # another folder, quickly
    bash run_all.sh --variants holistic sgar          # only these models
    bash run_all.sh --seeds 0 1 2                     # each model with three seeds, all ensembled
    bash run_all.sh --all_data                        # also a model of all data beside the folds'
    bash run_all.sh --rerank                          # also scores by likelihood, in the ensemble
    bash run_all.sh --dry_run                         # check everything and print the commands
    bash run_all.sh --dry_run --tasks                 # the trainings alone, one for each fold
    bash run_all.sh --tuned none --task 2/4           # the second of four shares of them
    bash run_all.sh --tuned none --task any           # those that no other worker does

run_all.sh calls this script in the environment that it makes. Without a data folder it runs on a
generated challenge. Any flag of the scripts goes to those that know it: --lr 3e-4,
--text_tower hf:FOLDER, --max_minutes 10, --seed 1, ... A second run reuses what is finished.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.pipeline import preflight
from motret.pipeline.plan import make_plan, run_plan

DRY_RUN = ("--dry_run", "--dry-run")


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = cli.arguments(argv)
    if {"-h", "--help"} & set(args):
        print(__doc__)
        return 0
    plan = make_plan([arg for arg in args if arg not in DRY_RUN])
    print("\n".join([*plan.notes, f"data {plan.data_dir}, preset {plan.preset}"]), flush=True)
    if not set(DRY_RUN) & set(args):
        return run_plan(plan)
    preflight.check_before_run(plan.data_dir, plan.test_dir, plan.folders, plan.args_of("train"))
    if plan.lists_tasks:
        tasks = plan.tasks()
        if plan.task_share is not None:
            tasks = plan.task_share.select(tasks)
        print("\n".join(f"{task.name}: {task.step.command()}" for task in tasks))
        return 0
    print("\n".join(step.command() for step in plan.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
