"""Checks and packs the data, and says what is in it: `python solution/prepare.py --data_dir data`.

Features go to work/<key>/, where the key follows from the content of the raw files: a second run finds them. The data report is
printed and kept as work/report.json.
"""

import sys
from collections.abc import Sequence

from motret import cli, dataset, store
from motret.config import PrepareSettings
from motret.survey import survey


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = cli.parse(PrepareSettings, argv, __doc__)
    data = dataset.load_training(settings.data, settings.machine.jobs)
    folder = settings.data.data_dir / "test"
    test = dataset.load_test(folder, data.store.settings, settings.data, settings.machine.jobs) if folder.is_dir() else None
    report = survey(data, test)
    print("\n".join(report.lines))
    store.write_json(settings.data.work_dir / "report.json", {"data": data.fingerprint} | report.facts)
    print(f"features {'as packed before' if data.reused and (test is None or test.reused) else 'packed'} in {data.store.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
