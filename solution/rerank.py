"""Scores candidates once more, with what finished runs have learned.

    python solution/rerank.py --runs NAME
    python solution/ensemble.py --runs NAME --members runs/NAME/likelihood.npz
    python solution/rerank.py --runs NAME --method words

A run compares one vector of a caption with one of a motion. Here a small language model says how
likely the caption is, word after word, given the tokens of the motion (--method likelihood), or
every word looks for the token that fits it best (--method words). The run itself stays as it is.
Each fold is scored by what was trained on the others, and the ensemble weighs the file like a
model.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import RerankConfig


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config = cli.parse(RerankConfig, argv, __doc__)
    # torch imports slowly, and --help needs none of it
    from motret.rerank import rerank

    paths = [str(path) for path in rerank.rerank_runs(config) if path.is_file()]
    if paths:
        print(f"to rank with them: python solution/ensemble.py --members {' '.join(paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
