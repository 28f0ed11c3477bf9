"""The whole way: check, fold, train, rank, validate. `bash run_all.sh` calls this inside the environment it makes.

    bash run_all.sh                                   # data/ with the full preset; a generated challenge where there is none
    bash run_all.sh --data_dir DIR --preset fast      # another folder, quickly
    bash run_all.sh --dry_run                         # the plan alone

Any flag of the scripts is handed on to those that know it: --lr 3e-4, --text_tower hf:FOLDER, --max_minutes 10, --seed 1, ...
What is finished and valid is reused by a second run.
"""

import sys
from collections.abc import Sequence

from motret import cli, pipeline


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(args):
        print(__doc__)
        return 0
    plan = pipeline.make_plan([arg for arg in args if arg not in ("--dry_run", "--dry-run")])
    print("\n".join([*plan.notes, f"data {plan.data_dir}, preset {plan.preset}"]))
    if len(args) != len([arg for arg in args if arg not in ("--dry_run", "--dry-run")]):
        for number, step in enumerate(plan.steps, start=1):
            print(f"[{number}/{len(plan.steps)}] {step.title}: {plan.known(step).command()}")
        return 0
    return pipeline.run(plan)


if __name__ == "__main__":
    sys.exit(main())
