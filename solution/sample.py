"""Writes a generated challenge in the competition's layout, with its right answers, so that everything runs with no download.

In work/sample: `python solution/sample.py`; a small one: `python solution/sample.py --out work/small --motions 60 --queries 10`.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields

from motret import cli
from motret.config import SampleSettings
from motret.synth import SceneSettings, make_sample


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = cli.parse(SampleSettings, argv, __doc__)
    scenes = SceneSettings(**{item.name: getattr(settings, item.name) for item in fields(SceneSettings)})
    print(make_sample(settings.out, scenes, settings.force).line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
