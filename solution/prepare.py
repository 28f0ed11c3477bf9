"""Checks and packs the data, and says what is in it: `python solution/prepare.py --data_dir data`.

Features go to work/<key>/, where the key follows from the content of the raw files: a second run finds them. The data report is
printed and kept as work/report.json. --describe_parts also writes what each body part does, derived from the motions, as GAR JSON;
--export_split_joints DIR writes the training motions in the layout of the SGAR description.
"""

import sys
from collections.abc import Sequence

from motret import cli, dataset, demo, describe, export, files, gar, rotations
from motret.config import PrepareSettings
from motret.survey import survey


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    settings = cli.parse(PrepareSettings, args, __doc__)
    demo.make_missing(args, argv)
    data = dataset.load_training(settings.data, settings.machine.jobs)
    folder = settings.data.data_dir / "test"
    test = dataset.load_test(folder, data.store.settings, settings.data, settings.machine.jobs) if folder.is_dir() else None
    report = survey(data, test)
    print("\n".join(report.lines))
    if "rotation" in data.store.columns:
        found = rotations.find_in(data.training.paths, data.store.settings.metres)
        known = str(found) if found.fits else f"none that is known, so rotations cannot be mirrored; nearest: {found}"
        print(f"rotation convention: {known}")
    files.write_json(settings.data.work_dir / "report.json", {"data": data.fingerprint} | report.facts)
    if settings.describe_parts:
        file, use = settings.data.work_dir / "gar_described.json", settings.data.data_dir / "texts" / gar.FILES[0]
        told = describe.describe_training(data.training, data.store.settings, settings.machine.jobs)
        gar.write_ours(file, settings.data.work_dir / "seen" / file.name, told, use)
        print(f"part descriptions of {len(data.training.ids)} motions in {file}: to train on them, edited or not, copy it to {use}")
    if settings.export_split_joints is not None:
        out = (*settings.export_split_joints, settings.data.work_dir / "split_joints")[0]
        count = export.export(data, out, settings.data.id_width, settings.machine.jobs)
        each = "" if data.store.persons == 1 else ", one of each person (<id>_a, <id>_b)"
        print(f"{count} motions with split joints in {out}{each}, each with the first caption of its scene")
    print(f"features {'as packed before' if data.reused and (test is None or test.reused) else 'packed'} in {data.store.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
