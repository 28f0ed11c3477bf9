"""Adapts a text tower to how people describe motions.

    python solution/adapt.py --text_tower hf:FOLDER --captions captions.json
    python solution/train.py holistic --text_tower hf:work/text_tower

Sentences that people wrote of one motion are brought together, those of other motions apart. Any
captions of motions will do, the motions themselves are not needed. By default they are the
competition's own; then the local score looks a little too good, as the tower has read the captions
of every fold. Before and after, it prints how often a sentence finds another one of its motion.
"""

import sys
from collections.abc import Sequence

from motret.config import cli
from motret.config.scripts import AdaptConfig
from motret.formats.caption_files import read_caption_sets


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    config = cli.parse(AdaptConfig, argv, __doc__)
    paths = config.captions or (config.data_dir / "texts",)
    sets = [captions for path in paths for captions in read_caption_sets(path)]
    # torch imports slowly, and --help needs none of it
    from motret.training import text_adaptation

    text_adaptation.adapt_text_tower(config, sets)
    print(f"to train with it: python solution/train.py holistic --text_tower hf:{config.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
