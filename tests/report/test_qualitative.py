"""The qualitative analysis on a case whose answers are known, and action words on captions whose verbs are."""

import re
from pathlib import Path

import numpy as np
import pytest

from helpers import check
from motret.evaluation import metrics
from motret.report import action_words, qualitative
from motret.report.qualitative import AnalysisInputs, CaptionRanks, Pairs
from motret.runs.oof import OutOfFold

CAPTIONS = (
    ("a person walks forward", "someone is walking"),
    ("a person waves", "one person waves the left hand"),
    ("two people walk", "both people walk in circles"),
    ("one person waves the right hand", "someone waves"),
    ("a person walks forward", "one walks ahead"),
    ("both of them bow", "two people stand there"),
)
SIMILARITY = np.full((12, 6), -0.2)
"""Captions x motions: every caption finds its motion but the second one of motion 1 (third) and both of motion 4 (fifth, second)."""
SIMILARITY[np.arange(12), np.repeat(np.arange(6), 2)] = 0.8
SIMILARITY[3] = [0.1, 0.3, 0.0, 0.9, 0.4, 0.2]
SIMILARITY[8] = [0.9, 0.5, 0.8, 0.7, 0.4, 0.6]
SIMILARITY[9] = [0.6, 0.0, 0.0, 0.0, 0.5, 0.0]
FLAT = [caption for own in CAPTIONS for caption in own]


def look() -> AnalysisInputs:
    """Embeddings with exactly these similarities: motions are unit vectors along the axes."""
    out = OutOfFold(np.array([f"{row:03d}" for row in range(6)]), np.arange(6), np.eye(6), SIMILARITY, np.repeat(np.arange(6), 2))
    pairs = Pairs(np.eye(6)[:5], np.roll(np.eye(6), 1, axis=0)[:5])
    return AnalysisInputs("small, fold 0", 7, out, FLAT, np.arange(5), pairs, seed=3)


def ranks() -> CaptionRanks:
    return CaptionRanks.of(look().out)


def actions() -> dict[str, str]:
    return action_words.action_words(FLAT)


def test_ranks_are_those_of_the_right_motions() -> None:
    found = ranks()
    assert found.rank.tolist() == [0, 0, 0, 2, 0, 0, 0, 0, 5, 1, 0, 0]
    np.testing.assert_allclose(found.score, metrics.rank_value(found.rank.astype(int)))  # of a fold of six, all are candidates


def test_random_queries_show_their_top_and_the_right_motion_wherever_it_stands() -> None:
    text = "\n".join(qualitative.query_retrieval(look(), ranks()))
    assert "10 random captions, top 5 of 6 held-out motions." in text
    asked = re.findall(r'^"(.*)"  \(motion (\d+), rank (\d) of 6\)$', text, flags=re.MULTILINE)
    assert len(asked) == 10
    for block, (caption, motion, rank) in zip(text.split("\n\n")[1:], asked, strict=True):
        rows = re.findall(r"^  ([* ]) +(\d) +(-?\d\.\d{3})  (\d{3})  (.+)$", block, flags=re.MULTILINE)
        asks = [row for row in range(12) if FLAT[row] == caption and row // 2 == int(motion)]
        assert [(int(place), name) for mark, place, _, name, _ in rows if mark == "*"] == [(int(rank), motion)]
        assert [int(place) for _, place, *_ in rows] == ([1, 2, 3, 4, 5, 6] if rank == "6" else [1, 2, 3, 4, 5])
        for _, place, cosine, name, told in rows:
            assert told == CAPTIONS[int(name)][0]
            assert any(np.isclose(SIMILARITY[row, int(name)], float(cosine), atol=6e-4) for row in asks), (caption, place)
    assert ("        ..." in text) == any(rank == "6" for *_, rank in asked)


def test_accuracy_by_action_word_is_that_of_the_captions_with_it() -> None:
    lines = qualitative.category_analysis(look(), ranks(), actions())
    rows = {line[:16].strip(): line[16:].split() for line in lines[8:] if line}
    # walks: captions 0 1 4 5 8 9, of which 8 is sixth and 9 second; the top motions of both are of motion 0, which walks too
    score = np.mean([1, 1, 1, 1, *metrics.rank_value(np.array([5, 1]))])
    assert rows["walks"] == ["6", "66.7%", "83.3%", "100.0%", "1.0", f"{score:.3f}", "100.0%"]
    # waves: captions 2 3 6 7, of which 3 is third; its top motion waves as well
    score = np.mean([1, 1, 1, metrics.rank_value(np.array(2))])
    assert rows["waves"] == ["4", "75.0%", "100.0%", "100.0%", "1.0", f"{score:.3f}", "100.0%"]
    assert rows["(none of them)"][:2] == ["2", "100.0%"] and rows["every caption"][:2] == ["12", "75.0%"]
    assert set(rows) == {"walks", "waves", "(none of them)", "every caption"}
    assert list(rows).index("waves") < list(rows).index("walks")  # better scores first


def test_the_worst_failures_come_first_with_what_stood_above_them() -> None:
    lines = qualitative.failure_analysis(look(), ranks())
    text = "\n".join(lines)
    assert "0 of 12 captions (0.0%) miss the top 10 of 6 motions." in text
    blocks = text.split("\n\n")[2:]
    assert blocks[0].splitlines() == [
        '"a person walks forward"',
        "   motion 004 is 6 of 6, 0.400",
        '   1. motion 000, 0.900: "a person walks forward"',
        "      the same words",
        '   2. motion 002, 0.800: "two people walk"',
        "      only the query: person, walks, forward; only this: two, people, walk",
        '   3. motion 003, 0.700: "one person waves the right hand"',
        "      only the query: walks, forward; only this: one, waves, right, hand",
    ]
    second = blocks[1].splitlines()  # caption 9 is of the same motion as the first
    assert second[:2] == ['"one person waves the left hand"', "   motion 001 is 3 of 6, 0.300"]
    assert second[2:4] == ['   1. motion 003, 0.900: "one person waves the right hand"', "      only the query: left; only this: right"]
    told = [block.splitlines()[0] for block in blocks]
    assert len(set(told)) == len(told) == 6  # one of a motion


def test_captions_that_another_motion_shares_are_counted_apart() -> None:
    many = 15
    out = OutOfFold(np.arange(many).astype(str), np.arange(many), np.eye(many), np.tile(-np.arange(many) / 20, (many, 1)), np.arange(many))
    captions = ["a person walks"] + [f"someone does number {row}" for row in range(1, many)]
    captions[-1] = "A person walks!"
    seen = AnalysisInputs("n", 1, out, captions, np.arange(4), Pairs(np.eye(4), np.eye(4)), 0)
    text = qualitative.failure_analysis(seen, CaptionRanks.of(out))
    assert "5 of 15 captions (33.3%) miss the top 10 of 15 motions." in text
    assert any(line.startswith("Of these 5, 1 stand below a motion with a caption of the same words") for line in text)


def test_the_six_files_have_their_names_and_the_pictures_are_whole(tmp_path: Path) -> None:
    folder = tmp_path / "qualitative_epoch7"
    points = qualitative.write_analysis(folder, look())
    assert points.shape == (10, 2)
    kinds = {"1_heatmap": "png", "2_query_retrieval": "txt", "3_category_analysis": "txt", "4_tsne": "png", "5_similarity": "png"}
    kinds["6_failure_analysis"] = "txt"
    assert {path.name for path in folder.iterdir()} == {f"{name}_epoch7.{kind}" for name, kind in kinds.items()}
    for path in folder.glob("*.png"):
        check(path)
    for path in folder.glob("*.txt"):
        assert "small, fold 0, epoch 7" in path.read_text().splitlines()[0]
    qualitative.latent_space(tmp_path / "tsne_latent_space.png", look(), points)
    check(tmp_path / "tsne_latent_space.png", 9.0)


def test_the_same_pairs_are_drawn_again_and_never_more_than_there_are() -> None:
    drawn = qualitative.choose_pairs(50, 20, seed=1)
    np.testing.assert_array_equal(drawn, qualitative.choose_pairs(50, 20, seed=1))
    assert len(set(drawn)) == 20 and (np.diff(drawn) > 0).all() and drawn.max() < 50
    assert not np.array_equal(drawn, qualitative.choose_pairs(50, 20, seed=2))
    np.testing.assert_array_equal(qualitative.choose_pairs(5, 20, seed=1), np.arange(5))


class Tsne:
    def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, : self.iterations // 250]


class TsneOfToday(Tsne):
    def __init__(self, *, metric: str, init: str, perplexity: float, random_state: int, n_jobs: int, max_iter: int = 1000) -> None:
        self.iterations = max_iter


class TsneBefore15(Tsne):
    def __init__(self, *, metric: str, init: str, perplexity: float, random_state: int, n_jobs: int, n_iter: int = 1000) -> None:
        self.iterations = n_iter


@pytest.mark.parametrize("kind", [TsneOfToday, TsneBefore15])
def test_each_scikit_learn_takes_the_number_of_iterations_by_its_own_name(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sklearn.manifold.TSNE", kind)
    assert qualitative.tsne_points(Pairs(np.eye(6), np.eye(6)), seed=0).shape == (12, 2)


# ---- action words


def test_forms_of_a_verb_are_one_word() -> None:
    for forms in ("wave waves waving waved", "walk walks walking", "hop hops hopping hopped", "carry carries carrying", "punch punches"):
        assert len({action_words.stem(word) for word in forms.split()}) == 1, forms
    assert action_words.stem("pass") == action_words.stem("passes") and action_words.stem("walk") != action_words.stem("wave")


def test_action_words_are_verbs_that_several_captions_share() -> None:
    found = actions()
    assert found == {"walk": "walks", "wav": "waves"}  # bow and stand are rare; persons, hands, forward are no actions
    assert action_words.actions_in("someone WAVES, walks and waves", found) == ["wav", "walk"]
    assert action_words.action_words([*FLAT, *["they are tired", "a tired man", "tired"] * 3]) == found  # no verb's ending
    assert list(action_words.action_words(FLAT, most=1)) == ["walk"]
    assert action_words.action_words([]) == {}
