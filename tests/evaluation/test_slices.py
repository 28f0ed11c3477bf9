"""The local score by what captions are like, against twins in plain loops."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import DATA, FOLDS, made_run
from motret.data.caption_distance import WordDistance
from motret.evaluation import local_score, metrics, slices
from motret.evaluation.slices import HeldOutCaptions, Slicing
from motret.runs.run import Run

CAPTIONS = DATA.training.captions


GROUPED = replace(FOLDS, group=(np.arange(20) // 4).astype(str))


@pytest.fixture
def run(tmp_path) -> Run:
    return made_run(tmp_path, "one")


@pytest.fixture
def held_out(run: Run) -> HeldOutCaptions:
    return local_score.held_out_captions([run], GROUPED, CAPTIONS)


def made(scores, motion, group, fold=None, texts=None) -> HeldOutCaptions:
    """Captions of motions 0, 1, ..., in one fold unless told otherwise."""
    motion, count = np.array(motion), len(scores)
    fold = np.zeros(count, dtype=int) if fold is None else np.array(fold)
    return HeldOutCaptions(
        tuple(texts or ["text"] * count), np.array(scores), fold, motion, motion, np.array(group)
    )


# ---- scores


def test_all_captions_together_score_what_the_run_does(run, held_out):
    whole = Slicing("all", ("every",), np.zeros(len(held_out.texts), dtype=int))
    (row,) = slices.score_slices(held_out, [whole])
    score = local_score.out_of_fold_score([run], GROUPED).score
    assert (row.score.motions, row.score.groups) == (score.motions, score.groups)
    assert row.score.mean == pytest.approx(score.mean)
    assert row.score.error == pytest.approx(score.error)
    assert row.to_rest is None and row.captions == sum(map(len, CAPTIONS))


def test_a_slice_scores_its_captions_in_the_whole_gallery(run, held_out):
    """Twin: every caption ranks all motions of its fold; those of the slice are averaged."""
    chosen = [text.endswith("told 1") for text in held_out.texts]
    by_motion: dict[int, list[float]] = {}
    for fold in (0, 1):
        sim, out = local_score.fold_similarity([run], fold)
        texts = [text for motion in out.data_idx for text in CAPTIONS[motion]]
        for row, text in enumerate(texts):
            if text.endswith("told 1"):
                right = out.motion_idx[row]
                better = np.array([(sim[row] > sim[row, right]).sum()])
                value = metrics.expected_score(better, np.array([0]), 10, 10)[0]
                by_motion.setdefault(int(out.data_idx[right]), []).append(value)
    slicing = Slicing("told", ("else", "first"), np.array(chosen, dtype=int))
    scores = {score.label: score for score in slices.score_slices(held_out, [slicing])}
    values = np.array([np.mean(by_motion[motion]) for motion in sorted(by_motion)])
    groups = np.array([str(motion // 4) for motion in sorted(by_motion)])
    expected = metrics.cluster_robust_mean(values, groups)
    first = scores["first"]
    assert first.score.mean == pytest.approx(expected.mean)
    assert first.score.error == pytest.approx(expected.error)
    assert first.captions == sum(chosen)
    assert first.to_rest.mean == pytest.approx(first.score.mean - scores["else"].score.mean)
    assert first.to_rest.mean == -scores["else"].to_rest.mean


def test_the_difference_of_separate_motions_has_the_errors_of_both_sides():
    rng = np.random.default_rng(0)
    held_out = made(rng.random(40), range(40), [f"g{index}" for index in range(40)])
    member = np.arange(40) < 15
    sides = [
        metrics.cluster_robust_mean(held_out.score[side], held_out.group[side])
        for side in (member, ~member)
    ]
    difference = slices.difference_to_rest(held_out, member)
    assert difference.mean == pytest.approx(sides[0].mean - sides[1].mean)
    squares = sum(side.error**2 * (side.motions - 1) / side.motions for side in sides)
    assert difference.error == pytest.approx((squares * 40 / 39) ** 0.5)


def test_a_difference_that_each_group_has_alike_is_certain():
    """What a group is better at in both slices cancels."""
    level = np.repeat([0.1, 0.5, 0.7, 0.3], 2)
    scores = level + np.tile([0.0, 0.2], 4)
    held_out = made(scores, np.repeat(range(4), 2), np.repeat(["a", "b", "c", "d"], 2))
    difference = slices.difference_to_rest(held_out, np.tile([False, True], 4))
    assert difference.mean == pytest.approx(0.2) and difference.error == pytest.approx(0)


def test_captions_in_another_order_than_the_gallery_are_refused(run):
    with pytest.raises(ValueError, match="fold 0"):
        local_score.held_out_captions([run], FOLDS, CAPTIONS[::-1])


# ---- slices


def test_thirds_keep_equal_values_together():
    slicing = slices.slice_in_thirds("words", np.array([3, 3, 3, 3, 5, 8, 9]), 0)
    assert slicing.labels == ("up to 3", "over 3, up to 5", "over 5")
    assert slicing.label_idx.tolist() == [0, 0, 0, 0, 1, 2, 2]
    constant = slices.slice_in_thirds("words", np.full(5, 2), 0)
    assert constant.labels == ("all",) and not constant.label_idx.any()


def test_counts_are_none_some_and_more():
    slicing = slices.slice_by_count("same", np.array([0, 1, 2, 3, 9]), (0, 2))
    assert slicing.labels == ("0", "1 to 2", "3 or more")
    assert slicing.label_idx.tolist() == [0, 1, 1, 2, 2]
    assert slices.slice_by_count("unseen", np.array([0, 1, 2]), (0, 1)).labels[1] == "1"


def test_motions_told_the_same_are_counted_in_their_fold_without_the_motion_itself():
    texts = ["Bow.", "bow", "bow", "bow", "wave"]
    held_out = made([0.0] * 5, [0, 0, 1, 2, 1], ["a"] * 5, [0, 0, 0, 1, 0], texts)
    assert slices.count_same(held_out).tolist() == [1, 1, 1, 0, 0]


def test_the_words_of_the_own_fold_do_not_count_as_seen(held_out):
    """Each caption of the test data names its motion's number, which no other fold has."""
    distance = slices.distance_to_other_folds(held_out, CAPTIONS, FOLDS)
    numbers = {word for texts in CAPTIONS for text in texts for word in text.split()[3:]}
    expected = [text.split()[1] not in numbers for text in held_out.texts]
    assert distance.unseen.tolist() == expected and (distance.distance[expected] > 0).all()


def test_slices_that_hold_every_caption_are_left_out(held_out):
    count = len(held_out.texts)
    distance = WordDistance(np.zeros(count), np.arange(count), np.zeros(count))
    names = [one.name for one in slices.make_slicings(held_out, distance, np.arange(20) / 2)]
    assert names == ["words in the caption", "seconds of motion"]
    sources = np.array(["kit", "cmu"] * 10)
    last = slices.make_slicings(held_out, distance, np.arange(20) / 2, sources)[-1]
    assert (last.name, last.labels) == ("source", ("cmu", "kit"))
    assert last.label_idx.tolist() == (1 - held_out.data_idx % 2).tolist()


@pytest.mark.parametrize(
    ("groups", "sources"),
    [
        (["cmu_01", "cmu_02", "kit/7"], ["cmu", "cmu", "kit"]),
        (["a:b_c", "d_e:f"], ["a", "d"]),
        (["cmu_1", "cmu_2"], None),
        (["cmu_1", "7"], None),
        (["_1", "cmu_1"], None),
        ([f"s{index}_1" for index in range(13)], None),
    ],
)
def test_a_source_is_what_every_group_has_before_a_mark(groups, sources):
    found = slices.sources_of_groups(np.array(groups))
    assert found is None if sources is None else found.tolist() == sources


# ---- spread


def test_the_spread_between_groups_is_what_sampling_does_not_explain():
    rng = np.random.default_rng(1)
    level = rng.normal(0.6, 0.08, 30)
    group = np.repeat(np.arange(30), 50)
    for deviation, levels in ((level.std(ddof=1), level), (0.0, np.full(30, 0.6))):
        scores = levels[group] + rng.normal(0, 0.2, 1500)
        spread = slices.score_spread(made(scores, range(1500), group.astype(str)))
        assert (spread.unit, spread.blocks) == ("groups", 30)
        assert spread.deviation == pytest.approx(deviation, abs=0.015)
        means = scores.reshape(30, 50).mean(axis=1)
        assert spread.worst_third.mean == pytest.approx(np.sort(means)[:10].mean())
    assert spread.line().startswith("between 30 groups: standard deviation 0.0")


def test_folds_are_compared_where_groups_are_small_and_sources_where_they_have_names():
    fold = np.arange(40) % 2
    small = made(np.linspace(0, 1, 40), range(40), [f"{index}" for index in range(40)], fold)
    assert slices.score_spread(small).unit == "folds"
    sources = np.array(["a", "b", "c", "d"] * 10)
    spread = slices.score_spread(small, sources)
    assert (spread.unit, spread.blocks) == ("sources", 4)
    assert slices.score_spread(small, np.full(40, "a")).unit == "folds"
    assert slices.score_spread(replace(small, fold=np.zeros(40))) is None


def test_the_column_of_sources_counts_before_the_names_of_groups():
    training = DATA.training
    named = replace(FOLDS, group=np.array(["cmu_1", "kit_2"] * 10))
    assert slices.motion_sources(training, FOLDS) is None
    assert slices.motion_sources(training, named).tolist() == ["cmu", "kit"] * 10
    told = replace(training, sources={name: f"of {name}" for name in training.ids})
    assert slices.motion_sources(told, named)[3] == f"of {training.ids[3]}"
