"""Scores candidates once more, word by word, with what finished runs have learned.

    python solution/rerank.py --runs NAME
    python solution/ensemble.py --runs NAME --members runs/NAME/word_match.npz

A run compares one vector of a caption with one of a motion. Here every word of the caption looks
for the token of the motion that fits it best. What is trained is small, the run itself stays as it
is. Each fold is scored by what was trained on the others, and the ensemble weighs the file like a
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
