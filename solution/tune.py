"""Tunes variants: searches for better temperatures, learning rates, loss weights and more.

    python solution/tune.py --preset full
    python solution/tune.py holistic --trials 50

Without a name it tunes every variant of the preset. A trial trains some folds for a few epochs with
other settings; its score is the local score on their held-out motions. The first trial has the
default settings. The best trials are confirmed on other folds before their values are adopted. The
same command again continues a stopped search; on another machine with the same --storage it joins
the search. Flags of train.py are taken too; the settings they give are not searched.

Results: runs/tune/<variant>/{best.json,trials.csv,history.png,importance.png,parallel.png}.
train.py --tuned auto uses best.json.
"""

import sys
from collections.abc import Sequence

from motret.config import cli, presets
from motret.pipeline import demo


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    args, is_demo = demo.with_demo_data(argv, takes_preset=True)
    config, flags = cli.parse_tune(args, __doc__)
    variants = config.variants or presets.PRESETS[config.preset or "full"].variants
    defaults = [cli.train_settings(flags | {"variant": variant}) for variant in variants]
    if is_demo:
        demo.make_missing(config)
    from motret.tuning import tune  # torch imports slowly, and --help needs none of it

    for train_config, sources in defaults:
        print(tune.tune(train_config, sources, config, time_fraction=1 / len(variants)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
