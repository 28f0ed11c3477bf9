"""Measures how near the machine's own limit things run, and writes docs/benchmarks.md.

All of it: `python solution/bench.py`; some: `--only throughput validation`; your data: `--data_dir DIR --text_tower hf:FOLDER --epochs 5`.

throughput: training against the machine's matrix products. time_to_score: from raw files to a model of a given true score; needs
test/gt.csv. inference and preparation: against importing the libraries and reading the files. memory: at 4,000 and 40,000 motions.
validation: the local score of a large gallery. Model and training settings are those of train.py.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from motret import cli
from motret.config import ROOT, BenchSettings

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
    readings = []
    settings.data.work_dir.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(settings.only):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=settings.data.work_dir) as scratch:
            found = parts[name](settings, Path(scratch).resolve())
        print("\n".join(reading.line() for reading in found), flush=True)
        readings += found
    out = settings.out or ROOT / "docs" / "benchmarks.md"
    benchmarks.write(out, benchmarks.machine(workplace.choose_device(settings.machine.device)), readings, settings.quick)
    print(f"{len(readings)} readings in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
