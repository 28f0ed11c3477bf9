"""Measures how near the machine's own limit things run, and writes docs/benchmarks.md.

Each part's section on that page is written when the part is done, and the others stay; a part that cannot be measured is said, and the
exit code is 1.

All of it: `python solution/bench.py`; some: `--only throughput validation`; your data: `--data_dir DIR --text_tower hf:FOLDER --epochs 5`.

throughput: training against the machine's matrix products. time_to_score: from raw files to a model of a given true score; needs
test/gt.csv. inference and preparation: against importing the libraries and reading the files. memory: at 4,000 and 40,000 motions.
validation: the local score of a large gallery. Model and training settings are those of train.py.
"""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from motret import cli
from motret.config import ROOT, BenchSettings
from motret.faults import Fault

EPOCHS = 6
"""Of the training that time to score times, unless --epochs is given."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = cli.parse(BenchSettings, argv, __doc__, {"epochs": EPOCHS})
    from motret import benchmarks, footprint, throughput, time_to_score, workplace, yardsticks  # torch is slow to import

    parts = {
        "throughput": throughput.measure,
        "time_to_score": time_to_score.measure,
        "inference": yardsticks.inference,
        "preparation": yardsticks.preparation,
        "memory": footprint.memory,
        "validation": footprint.validation,
    }
    command = shlex.join(["python", "solution/bench.py", *(sys.argv[1:] if argv is None else argv)])
    out = settings.out or ROOT / "docs" / "benchmarks.md"
    settings.data.work_dir.mkdir(parents=True, exist_ok=True)
    surroundings = benchmarks.machine(workplace.choose_device(settings.machine.device))  # before the page is a change to the commit
    missing = False
    for name in dict.fromkeys(settings.only):
        try:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=settings.data.work_dir) as scratch:
                readings = parts[name](settings, Path(scratch).resolve())
        except Fault as fault:
            if settings.machine.debug:
                raise
            missing = True
            print(f"{name} was not measured: {fault}", file=sys.stderr)
            continue
        print("\n".join(reading.line() for reading in readings), flush=True)
        benchmarks.write(out, name, command, surroundings, readings, settings.quick)
        print(f"{len(readings)} readings of {name} in {out}", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
