"""Measures speed and memory against the limits of the machine, and writes docs/benchmarks.md.

    python solution/bench.py
    python solution/bench.py --only throughput validation
    python solution/bench.py --data_dir DIR --text_tower hf:FOLDER --epochs 5

throughput: training against the machine's matrix products. time_to_score: from raw files to a model
of a given true score; needs test/gt.csv. inference and preparation: against importing the libraries
and reading the files. memory: at 4,000 and 40,000 motions. validation: the local score of a large
gallery.

Each section is written to the page when it is measured; other sections of the page stay. If one
cannot be measured, the exit code is 1. Model and training settings are those of train.py.
"""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motret.config import cli
from motret.config.base import ROOT
from motret.config.scripts import BenchConfig
from motret.errors import MotretError

EPOCHS = 6
"""Epochs of the training that time_to_score times, unless --epochs is given."""


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config = cli.parse(BenchConfig, argv, __doc__, {"epochs": EPOCHS})
    from motret.benchmark import harness
    from motret.utils import device, files  # torch imports slowly, and --help needs none of it

    command = shlex.join(["python", "solution/bench.py", *cli.arguments(argv)])
    page = config.out or ROOT / "docs" / "benchmarks.md"
    files.make_dir(config.data.work_dir)
    # described before the page is written, which makes the commit a changed one
    machine = harness.describe_machine(device.choose_device(config.machine.device))
    failed = False
    for section in dict.fromkeys(config.only):
        try:
            measurements = _measure(section, config)
        except MotretError as error:
            if config.machine.debug:
                raise
            failed = True
            print(f"{section} was not measured: {error}", file=sys.stderr)
            continue
        print("\n".join(measurement.summary() for measurement in measurements), flush=True)
        harness.write_section(page, section, command, machine, measurements, config.quick)
        print(f"{len(measurements)} measurements of {section} in {page}", flush=True)
    return 1 if failed else 0


def _measure(section: str, config: BenchConfig) -> Sequence[Any]:
    """The measurements of a section, in a temporary folder on the disk of the work folder."""
    from motret.benchmark import baselines, memory, throughput, time_to_score

    measure = {
        "throughput": throughput.measure_throughput,
        "time_to_score": time_to_score.measure_time_to_score,
        "inference": baselines.measure_inference,
        "preparation": baselines.measure_preparation,
        "memory": memory.measure_memory,
        "validation": memory.measure_validation,
    }
    with tempfile.TemporaryDirectory(prefix="bench-", dir=config.data.work_dir) as scratch:
        return measure[section](config, Path(scratch).resolve())


if __name__ == "__main__":
    sys.exit(main())
