"""Checks and packs the data, and says what is in it: `python solution/prepare.py --data_dir data`.

Features go to work/<key>/, where the key follows from the content of the raw files: a second run finds them. The data report is
printed and kept as work/report.json. --describe_parts also writes what each body part does, derived from the motions, as GAR JSON;
--export_split_joints DIR writes the training motions in the layout of the SGAR description.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import PrepareConfig
from motret.data import dataset, export_split_joints, rotations
from motret.data.data_report import make_data_report
from motret.data.parts import describer
from motret.formats import gar
from motret.pipeline import demo
from motret.utils import files


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv)
    config = cli.parse(PrepareConfig, args, __doc__)
    demo.make_missing(args, argv)
    data = dataset.load_training(config.data, config.machine.jobs)
    folder = config.data.data_dir / "test"
    test = dataset.load_test(folder, data.store.config, config.data, config.machine.jobs) if folder.is_dir() else None
    report = make_data_report(data, test)
    print("\n".join(report.lines))
    if "rotation" in data.store.columns:
        found = rotations.find_convention_in_files(data.training.paths, data.store.config.metres)
        known = str(found) if found.fits else f"none that is known, so rotations cannot be mirrored; nearest: {found}"
        print(f"rotation convention: {known}")
    files.write_json(config.data.work_dir / "report.json", {"data": data.fingerprint} | report.facts)
    if config.describe_parts:
        file, use = config.data.work_dir / "gar_described.json", config.data.data_dir / "texts" / gar.GAR_FILES[0]
        told = describer.describe_training(data.training, data.store.config, config.machine.jobs)
        gar.write_generated_gar(file, config.data.work_dir / "seen" / file.name, told, use)
        print(f"part descriptions of {len(data.training.ids)} motions in {file}: to train on them, edited or not, copy it to {use}")
    if config.export_split_joints is not None:
        out = (*config.export_split_joints, config.data.work_dir / "split_joints")[0]
        count = export_split_joints.export_split_joints(data, out, config.data.id_width, config.machine.jobs)
        each = "" if data.store.persons == 1 else ", one of each person (<id>_a, <id>_b)"
        print(f"{count} motions with split joints in {out}{each}, each with the first caption of its scene")
    print(f"features {'as packed before' if data.cache_hit and (test is None or test.cache_hit) else 'packed'} in {data.store.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
