"""Packs what a Kaggle notebook needs into a folder to upload as a dataset.

    python solution/package.py --user NAME --competition SLUG                 # finished runs
    python solution/package.py --user NAME --competition SLUG --runs none     # to train on Kaggle

Writes to work/kaggle/dataset/ the code, the finished runs with their folds and text towers, and the
packages that Kaggle's image lacks; to work/kaggle/train/ and infer/ the notebooks ready to push.
Prints the commands that come next. Without --user and --competition it writes the dataset alone.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import PackageConfig


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config = cli.parse(PackageConfig, argv, __doc__)
    from motret.kaggle import package  # torch imports slowly, and --help needs none of it

    print("\n".join(package.write_package(config)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
