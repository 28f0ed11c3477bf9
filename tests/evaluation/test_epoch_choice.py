"""Scores of the last epoch, of each fold's best and of the best on the other folds."""

import numpy as np

from motret.evaluation import epoch_choice


def test_the_gain_of_choosing_the_epoch_is_paired_over_folds() -> None:
    folds = [{2: 0.1, 4: 0.5, 6: 0.35}, {2: 0.2, 4: 0.4, 6: 0.6}, {2: 0.3, 4: 0.5, 6: 0.4, 8: 0.2}]
    choice = epoch_choice.compare_epoch_choices(folds)
    np.testing.assert_allclose(choice.last, [0.35, 0.6, 0.2])
    np.testing.assert_allclose(choice.best_on_fold, [0.5, 0.6, 0.5])
    np.testing.assert_allclose(
        choice.best_on_other_folds, [0.35, 0.4, 0.4]
    )  # 6 on folds 1 and 2, 4 on 0 and 2, 6 on 0 and 1
    error = np.std([0.15, 0, 0.3], ddof=1) / 3**0.5
    assert (
        f"best on the fold itself {1.6 / 3:.4f} ({0.45 / 3:+.4f} +- {error:.4f})"
        in choice.summary()
    )
    assert epoch_choice.compare_epoch_choices(folds[:1]) is None
    assert epoch_choice.compare_epoch_choices([{1: 0.5}, {2: 0.5}]) is None
