"""The qualitative analysis of a small case with known ranks."""

import re
from pathlib import Path

import numpy as np
import pytest

from helpers import check
from motret.evaluation import metrics
from motret.report import action_words, qualitative, qualitative_texts
from motret.report.qualitative import AnalysisInputs, Pairs
from motret.report.qualitative_texts import CaptionRanks
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
"""Captions x motions: captions rank their motion first, but 3 third, 8 sixth and 9 second."""
SIMILARITY[np.arange(12), np.repeat(np.arange(6), 2)] = 0.8
SIMILARITY[3] = [0.1, 0.3, 0.0, 0.9, 0.4, 0.2]
SIMILARITY[8] = [0.9, 0.5, 0.8, 0.7, 0.4, 0.6]
SIMILARITY[9] = [0.6, 0.0, 0.0, 0.0, 0.5, 0.0]
FLAT = [caption for captions in CAPTIONS for caption in captions]


def inputs() -> AnalysisInputs:
    """Embeddings with exactly these similarities: motions are unit vectors along the axes."""
    out = OutOfFold(
        np.array([f"{index:03d}" for index in range(6)]),
        np.arange(6),
        np.eye(6),
        SIMILARITY,
        np.repeat(np.arange(6), 2),
    )
    pairs = Pairs(np.eye(6)[:5], np.roll(np.eye(6), 1, axis=0)[:5])
    return AnalysisInputs("small, fold 0", 7, out, FLAT, np.arange(5), pairs, seed=3)


def ranks() -> CaptionRanks:
    return CaptionRanks.of(inputs().out)


def actions() -> dict[str, str]:
    return action_words.action_words(FLAT)


def test_ranks_are_those_of_the_matching_motions() -> None:
    result = ranks()
    assert result.rank.tolist() == [0, 0, 0, 2, 0, 0, 0, 0, 5, 1, 0, 0]
    np.testing.assert_allclose(
        result.score, metrics.rank_value(result.rank.astype(int))
    )  # the pool is the fold of six


def test_random_queries_show_their_top_and_the_matching_motion_at_any_rank() -> None:
    output = "\n".join(qualitative_texts.query_retrieval(inputs(), ranks(), seed=3))
    assert "10 random captions, top 5 of 6 held-out motions." in output
    queries = re.findall(r'^"(.*)"  \(motion (\d+), rank (\d) of 6\)$', output, flags=re.MULTILINE)
    assert len(queries) == 10
    for block, (caption, motion, rank) in zip(output.split("\n\n")[1:], queries, strict=True):
        rows = re.findall(
            r"^  ([* ]) +(\d) +(-?\d\.\d{3})  (\d{3})  (.+)$", block, flags=re.MULTILINE
        )
        captions = [idx for idx in range(12) if FLAT[idx] == caption and idx // 2 == int(motion)]
        assert [(int(position), name) for mark, position, _, name, _ in rows if mark == "*"] == [
            (int(rank), motion)
        ]
        assert [int(position) for _, position, *_ in rows] == (
            [1, 2, 3, 4, 5, 6] if rank == "6" else [1, 2, 3, 4, 5]
        )
        for _, position, cosine, name, text in rows:
            assert text == CAPTIONS[int(name)][0]
            assert any(
                np.isclose(SIMILARITY[idx, int(name)], float(cosine), atol=6e-4) for idx in captions
            ), (caption, position)
    assert ("        ..." in output) == any(rank == "6" for *_, rank in queries)


def test_accuracy_by_action_word_is_that_of_the_captions_with_it() -> None:
    lines = qualitative_texts.category_analysis(inputs(), ranks(), actions())
    rows = {line[:16].strip(): line[16:].split() for line in lines[9:] if line}
    # walks: captions 0 1 4 5 8 9, of which 8 is sixth and 9 second; the top motion of both walks
    score = np.mean([1, 1, 1, 1, *metrics.rank_value(np.array([5, 1]))])
    assert rows["walks"] == ["6", "66.7%", "83.3%", "100.0%", "1.0", f"{score:.3f}", "100.0%"]
    # waves: captions 2 3 6 7, of which 3 is third; its top motion waves as well
    score = np.mean([1, 1, 1, metrics.rank_value(np.array(2))])
    assert rows["waves"] == ["4", "75.0%", "100.0%", "100.0%", "1.0", f"{score:.3f}", "100.0%"]
    assert rows["(none of them)"][:2] == ["2", "100.0%"] and rows["every caption"][:2] == [
        "12",
        "75.0%",
    ]
    assert set(rows) == {"walks", "waves", "(none of them)", "every caption"}
    assert list(rows).index("waves") < list(rows).index("walks")  # better scores first


def test_the_worst_failures_come_first_with_the_motions_above_them() -> None:
    lines = qualitative_texts.failure_analysis(inputs(), ranks())
    text = "\n".join(lines)
    assert "0 of 12 captions (0.0%) miss the top 10 of 6 motions." in text
    blocks = text.split("\n\n")[2:]
    assert blocks[0].splitlines() == [
        '"a person walks forward"',
        "   motion 004: rank 6 of 6, 0.400",
        '   1. motion 000, 0.900: "a person walks forward"',
        "      the same words",
        '   2. motion 002, 0.800: "two people walk"',
        "      only in the query: person, walks, forward; only here: two, people, walk",
        '   3. motion 003, 0.700: "one person waves the right hand"',
        "      only in the query: walks, forward; only here: one, waves, right, hand",
    ]
    second = blocks[1].splitlines()  # caption 9 is of the same motion as the first
    assert second[:2] == ['"one person waves the left hand"', "   motion 001: rank 3 of 6, 0.300"]
    assert second[2:4] == [
        '   1. motion 003, 0.900: "one person waves the right hand"',
        "      only in the query: left; only here: right",
    ]
    captions = [block.splitlines()[0] for block in blocks]
    assert len(set(captions)) == len(captions) == 6  # one of a motion


def test_captions_below_one_of_the_same_words_are_counted() -> None:
    many = 15
    out = OutOfFold(
        np.arange(many).astype(str),
        np.arange(many),
        np.eye(many),
        np.tile(-np.arange(many) / 20, (many, 1)),
        np.arange(many),
    )
    captions = ["a person walks"] + [f"someone does number {number}" for number in range(1, many)]
    captions[-1] = "A person walks!"
    case = AnalysisInputs("n", 1, out, captions, np.arange(4), Pairs(np.eye(4), np.eye(4)), 0)
    text = qualitative_texts.failure_analysis(case, CaptionRanks.of(out))
    assert "5 of 15 captions (33.3%) miss the top 10 of 15 motions." in text
    assert any(
        line.startswith("In 1 of these 5 a motion with a caption of the same words ranks above")
        for line in text
    )


def test_the_six_files_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "qualitative_epoch7"
    points = qualitative.write_analysis(folder, inputs())
    assert points.shape == (10, 2)
    kinds = {
        "1_heatmap": "png",
        "2_query_retrieval": "txt",
        "3_category_analysis": "txt",
        "4_tsne": "png",
        "5_similarity": "png",
    }
    kinds["6_failure_analysis"] = "txt"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}_epoch7.{kind}" for name, kind in kinds.items()
    }
    for path in folder.glob("*.png"):
        check(path)
    for path in folder.glob("*.txt"):
        assert "small, fold 0, epoch 7" in path.read_text().splitlines()[0]
    qualitative.plot_latent_space(tmp_path / "tsne_latent_space.png", inputs(), points)
    check(tmp_path / "tsne_latent_space.png", 9.0)


def test_the_same_seed_gives_the_same_pairs_and_never_more_than_there_are() -> None:
    pairs = qualitative.sample_pairs(50, 20, seed=1)
    np.testing.assert_array_equal(pairs, qualitative.sample_pairs(50, 20, seed=1))
    assert len(set(pairs)) == 20 and (np.diff(pairs) > 0).all() and pairs.max() < 50
    assert not np.array_equal(pairs, qualitative.sample_pairs(50, 20, seed=2))
    np.testing.assert_array_equal(qualitative.sample_pairs(5, 20, seed=1), np.arange(5))


class Tsne:
    def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, : self.iterations // 250]


class CurrentTsne(Tsne):
    def __init__(self, *, max_iter: int = 1000, **_: object) -> None:
        self.iterations = max_iter


class FormerTsne(Tsne):
    def __init__(self, *, n_iter: int = 1000, **_: object) -> None:
        self.iterations = n_iter


@pytest.mark.parametrize("kind", [CurrentTsne, FormerTsne])
def test_the_number_of_iterations_has_the_name_that_scikit_learn_expects(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sklearn.manifold.TSNE", kind)
    assert qualitative.tsne_points(Pairs(np.eye(6), np.eye(6)), seed=0).shape == (12, 2)
