"""Checks and packs the data, and prints what is in it.

    python solution/prepare.py --data_dir data

Features go to work/<key>/. The key is a hash of the raw files, so a second run reuses them. The
data report is printed and saved as work/report.json. --describe_parts also writes what each body
part does, derived from the motions, as GAR JSON. --export_split_joints DIR writes the training
motions in the layout of the SGAR description.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import PrepareConfig
from motret.data import dataset, export_split_joints, rotations
from motret.data.data_report import make_data_report
from motret.data.dataset import TrainingData
from motret.data.parts import describer
from motret.formats import gar
from motret.pipeline import demo
from motret.utils import files, reading


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv)
    config = cli.parse(PrepareConfig, args, __doc__)
    if is_demo:
        demo.make_missing(config)
    data = dataset.load_training(config.data, config.machine.jobs)
    test_dir, test = config.data.data_dir / "test", None
    if reading.is_folder(test_dir):
        test = dataset.load_test(test_dir, data.store.config, config.data, config.machine.jobs)
    report = make_data_report(data, test)
    print("\n".join(report.lines))
    print_rotation_convention(data)
    facts = {"data": data.fingerprint} | report.facts
    files.write_json(config.data.work_dir / "report.json", facts)
    if config.describe_parts:
        describe_parts(config, data)
    if config.export_split_joints is not None:
        export(config, data)
    reused = data.cache_hit and (test is None or test.cache_hit)
    print(f"features {'as packed before' if reused else 'packed'} in {data.store.folder}")
    return 0


def print_rotation_convention(data: TrainingData) -> None:
    """Prints how the motions' rotations are written, if they have any."""
    if "rotation" not in data.store.columns:
        return
    paths, metres = data.training.paths, data.store.config.metres
    convention = rotations.find_convention_in_files(paths, metres)
    if convention.fits:
        print(f"rotation convention: {convention}")
    else:
        problem = "none of the known ones, so rotations cannot be mirrored"
        print(f"rotation convention: {problem}; nearest: {convention}")


def describe_parts(config: PrepareConfig, data: TrainingData) -> None:
    """Writes part descriptions derived from the motions."""
    file = config.data.work_dir / "gar_described.json"
    training_file = config.data.data_dir / "texts" / gar.GAR_FILES[0]
    descriptions = describer.describe_training(
        data.training, data.store.config, config.machine.jobs
    )
    cache = config.data.work_dir / "seen" / file.name
    gar.write_generated_gar(file, cache, descriptions, training_file)
    print(
        f"part descriptions of {len(data.training.ids)} motions in {file}: "
        f"to train on them, edited or not, copy it to {training_file}"
    )


def export(config: PrepareConfig, data: TrainingData) -> None:
    """Writes the training motions in the layout of the SGAR description."""
    out = (*(config.export_split_joints or ()), config.data.work_dir / "split_joints")[0]
    count = export_split_joints.export_split_joints(
        data, out, config.data.id_width, config.machine.jobs
    )
    persons = "" if data.store.persons == 1 else ", one of each person (<id>_a, <id>_b)"
    print(
        f"{count} motions with split joints in {out}{persons}, "
        "each with the first caption of its scene"
    )


if __name__ == "__main__":
    sys.exit(main())
