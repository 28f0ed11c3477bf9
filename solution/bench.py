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

from motret.config import cli
from motret.config.base import ROOT
from motret.config.scripts import BenchConfig
from motret.errors import MotretError

EPOCHS = 6
"""Of the training that time to score times, unless --epochs is given."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config = cli.parse(BenchConfig, argv, __doc__, {"epochs": EPOCHS})
    from motret.benchmark import baselines, harness, memory, throughput, time_to_score
    from motret.utils import device  # torch is slow to import

    parts = {
        "throughput": throughput.measure_throughput,
        "time_to_score": time_to_score.measure_time_to_score,
        "inference": baselines.measure_inference,
        "preparation": baselines.measure_preparation,
        "memory": memory.measure_memory,
        "validation": memory.measure_validation,
    }
    command = shlex.join(["python", "solution/bench.py", *(sys.argv[1:] if argv is None else argv)])
    out = config.out or ROOT / "docs" / "benchmarks.md"
    config.data.work_dir.mkdir(parents=True, exist_ok=True)
    surroundings = harness.describe_machine(device.choose_device(config.machine.device))  # before the page is a change to the commit
    missing = False
    for name in dict.fromkeys(config.only):
        try:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=config.data.work_dir) as scratch:
                readings = parts[name](config, Path(scratch).resolve())
        except MotretError as fault:
            if config.machine.debug:
                raise
            missing = True
            print(f"{name} was not measured: {fault}", file=sys.stderr)
            continue
        print("\n".join(reading.summary() for reading in readings), flush=True)
        harness.write_section(out, name, command, surroundings, readings, config.quick)
        print(f"{len(readings)} readings of {name} in {out}", flush=True)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
