"""Writes a generated challenge in the competition's layout, with its ground truth.

    python solution/sample.py
    python solution/sample.py --out work/small --motions 60 --queries 10

With it everything runs without a download. By default it is written to work/sample.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields

from motret.config import cli
from motret.config.scripts import SampleConfig, SceneConfig
from motret.synthetic.challenge import make_sample


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config = cli.parse(SampleConfig, argv, __doc__)
    scenes = SceneConfig(**{item.name: getattr(config, item.name) for item in fields(SceneConfig)})
    print(make_sample(config.out, scenes, config.force).summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
