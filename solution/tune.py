"""Tunes variants: `python solution/tune.py [holistic ...] --preset full`; without a name every variant of the preset.

A trial trains some folds for a few epochs with other temperatures, rates, loss weights, ... and is judged by the local score on
what they hold out. The first trial is the default configuration; the best few are confirmed on other folds before values are
adopted. Running the same command again goes on where it stopped; the same command on another machine, with one --storage, helps.
Flags of train.py are taken too, and what they give is not searched.
Results: runs/tune/<variant>/{best.json,trials.csv,history.png,importance.png,parallel.png}; train.py --tuned auto takes best.json.
"""

import sys
from collections.abc import Sequence

from motret.config import cli, presets
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args = demo.with_data(argv, takes_preset=True)
    asked, flags = cli.parse_tune(args, __doc__)
    variants = asked.variants or presets.PRESETS[asked.preset or "full"].variants
    defaults = [cli.parse_train([variant, *flags], None) for variant in variants]
    demo.make_missing(args, argv)
    from motret.tuning import tune  # torch is slow to import: --help and a wrong flag answer without it

    for config, sources in defaults:
        print(tune.tune(config, sources, asked, time_fraction=1 / len(variants)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
