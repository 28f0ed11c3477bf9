"""Validation queries and the submission's check, through the command line of validate.py."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import validate
from helpers import data_flags, load, write_data
from motret.data import folds
from motret.formats import submission
from motret.formats.queries import read_queries

pytestmark = pytest.mark.filterwarnings("ignore:.*candidates.*:UserWarning")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def draw(root: Path, *flags: str) -> int:
    return validate.main(["make_batches", *data_flags(root), *flags])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a fault: the last on stderr, with no traceback before it."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.splitlines()[-1]


# ---- make_batches


@pytest.mark.parametrize(
    ("queries", "candidates", "disjoint"), [(2, 2, True), (1, 4, True), (5, 4, False)]
)
def test_queries_are_of_held_out_motions_and_their_truth_is_right(
    own_challenge: Path,
    queries: int,
    candidates: int,
    disjoint: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        draw(
            own_challenge, "--fold", "1", "--queries", str(queries), "--candidates", str(candidates)
        )
        == 0
    )
    assert ("share candidates" in capsys.readouterr().out) == (not disjoint)
    data, val = load(own_challenge), own_challenge / "val"
    split = folds.read_folds(data, own_challenge.parent / "folds")
    assert split.count == 5
    id_of = {
        path.read_bytes(): name
        for path, name in zip(data.training.paths, data.training.ids, strict=True)
    }
    captions = dict(zip(data.training.ids, data.training.captions, strict=True))
    val_ids = {data.training.ids[index] for index in split.val_idx(1)}
    truth = submission.read_ground_truth(val / "gt.csv")
    drawn = read_queries(val)
    assert (
        [query.id for query in drawn]
        == [str(number) for number in range(1, queries + 1)]
        == list(truth)
    )
    ids_used = []
    for query in drawn:
        ids = [id_of[path.read_bytes()] for path in query.paths]
        assert (
            query.candidates == tuple(range(1, candidates + 1))
            and len(set(ids)) == candidates
            and set(ids) <= val_ids
        )
        (caption,) = query.captions
        assert caption in captions[ids[truth[query.id] - 1]]
        ids_used += ids
    assert (len(set(ids_used)) == len(ids_used)) == disjoint


def test_the_right_candidate_stands_anywhere_and_any_caption_may_be_asked(
    own_challenge: Path,
) -> None:
    assert draw(own_challenge, "--queries", "60", "--candidates", "4") == 0
    truth = submission.read_ground_truth(own_challenge / "val" / "gt.csv")
    shares = np.bincount(list(truth.values()), minlength=5)[1:]
    assert shares.min() >= 6  # 15 each in the mean
    data = load(own_challenge)
    first = {captions[0] for captions in data.training.captions}
    captions = {query.captions[0] for query in read_queries(own_challenge / "val")}
    assert captions & first and captions - first


def test_the_same_seed_draws_the_same_queries_and_another_seed_or_fold_others(
    own_challenge: Path, tmp_path: Path
) -> None:
    outputs = []
    for index, flags in enumerate(
        (["--seed", "0"], ["--seed", "0"], ["--seed", "1"], ["--fold", "1"])
    ):
        assert (
            draw(
                own_challenge,
                *flags,
                "--queries",
                "2",
                "--candidates",
                "2",
                "--out",
                str(tmp_path / str(index)),
            )
            == 0
        )
        outputs.append(
            {
                name: data
                for name, data in contents(tmp_path / str(index)).items()
                if name != "val.json"
            }
        )
    assert outputs[0] == outputs[1] and outputs[0] != outputs[2] and outputs[0] != outputs[3]


def test_older_queries_are_replaced_and_what_they_are_of_is_written_down(
    own_challenge: Path,
) -> None:
    assert draw(own_challenge, "--queries", "3", "--candidates", "2") == 0
    assert draw(own_challenge, "--queries", "1", "--candidates", "3") == 0
    val = own_challenge / "val"
    assert sorted(path.name for path in val.iterdir()) == ["1", "gt.csv", "val.json"]
    data = load(own_challenge)
    split = folds.read_folds(data, own_challenge.parent / "folds")
    about = {
        "fold": 0,
        "queries": 1,
        "candidates": 3,
        "seed": 0,
        "data": data.fingerprint,
        "folds": split.hash,
    }
    assert json.loads((val / "val.json").read_text()) == about


def test_drawing_queries_changes_nothing_of_the_data(own_challenge: Path) -> None:
    before, fingerprint = contents(own_challenge), load(own_challenge).fingerprint
    assert draw(own_challenge, "--queries", "2", "--candidates", "2") == 0
    after, again = contents(own_challenge), load(own_challenge)
    assert {name: after[name] for name in before} == before
    assert again.fingerprint == fingerprint and again.cache_hit


def test_motions_are_copied_where_links_cannot_be_made(
    own_challenge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        draw(
            own_challenge,
            "--queries",
            "2",
            "--candidates",
            "2",
            "--out",
            str(own_challenge / "linked"),
        )
        == 0
    )

    def refuses(*_, **__):
        raise OSError("another disk")

    monkeypatch.setattr(Path, "symlink_to", refuses)
    assert (
        draw(
            own_challenge,
            "--queries",
            "2",
            "--candidates",
            "2",
            "--out",
            str(own_challenge / "copied"),
        )
        == 0
    )
    assert contents(own_challenge / "copied") == contents(own_challenge / "linked")
    assert (own_challenge / "linked" / "1" / "motion_1.npy").is_symlink()
    assert not (own_challenge / "copied" / "1" / "motion_1.npy").is_symlink()


def test_a_foreign_folder_is_left_alone(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = own_challenge / "val"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("ten years of work")
    assert draw(own_challenge, "--queries", "2", "--candidates", "2") == 1
    assert error_line(capsys).startswith(
        f"error: {foreign}: holds something that this script did not make"
    )
    assert contents(foreign) == {"thesis.txt": b"ten years of work"}


def test_an_empty_folder_is_nobodys(own_challenge: Path) -> None:
    (own_challenge / "val").mkdir()
    assert draw(own_challenge, "--queries", "2", "--candidates", "2") == 0
    assert len(read_queries(own_challenge / "val")) == 2


def test_queries_that_break_off_leave_the_older_ones(
    own_challenge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draw(own_challenge, "--queries", "2", "--candidates", "2") == 0
    before = contents(own_challenge)

    def breaks(*_, **__):
        raise RuntimeError("broken off")

    monkeypatch.setattr("motret.utils.files.link_or_copy", breaks)
    with pytest.raises(RuntimeError):
        draw(own_challenge, "--queries", "1", "--candidates", "2")
    assert contents(own_challenge) == before and not [
        path for path in own_challenge.iterdir() if path.name.startswith(".")
    ]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--fold", "5"], "--fold: there is no fold 5 (give 0 to 4)"),
        (["--fold", "-1"], "--fold: there is no fold -1 (give 0 to 4)"),
        (["--candidates", "0"], "--candidates: 0 of {held} held-out motions (give 1 to {held})"),
        (["--candidates", "32"], "--candidates: 32 of {held} held-out motions (give 1 to {held})"),
        (["--candidates", "2", "--queries", "0"], "--queries: is 0 (1 or more is needed)"),
        (["--candidates", "2", "--queries", "-1"], "--queries: is -1 (1 or more is needed)"),
    ],
)
def test_numbers_that_cannot_be_drawn_are_refused(
    own_challenge: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(own_challenge, *flags) == 1
    count = len(folds.read_folds(load(own_challenge), own_challenge.parent / "folds").val_idx(0))
    assert error_line(capsys) == "error: " + said.format(held=count)
    assert not (own_challenge / "val").exists()


def test_folds_of_other_data_are_not_drawn_from(
    own_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds.make_folds(
        load(write_data(tmp_path / "other" / "data", ["1", "2", "3"])),
        3,
        0,
        own_challenge.parent / "folds",
    )
    assert draw(own_challenge, "--queries", "2", "--candidates", "2") == 1
    line = error_line(capsys)
    assert "other data" in line and "make_folds.py" in line and not (own_challenge / "val").exists()


def test_dashes_in_the_name_of_the_command_are_underscores(own_challenge: Path) -> None:
    assert (
        validate.main(
            ["make-batches", *data_flags(own_challenge), "--queries", "1", "--candidates", "2"]
        )
        == 0
    )
    assert (own_challenge / "val" / "gt.csv").is_file()


# ---- submission


def write_answers(root: Path, shift: int = 0) -> Path:
    """A submission that puts the right candidate of every query at rank 1 + shift."""
    truth = submission.read_ground_truth(root / "test" / "gt.csv")
    rankings = {}
    for query, right in truth.items():
        others = [number for number in range(1, 13) if number != right]
        rankings[query] = [*others[:shift], right, *others[shift:]]
    submission.write_submission(root.parent / "answers.csv", rankings)
    return root.parent / "answers.csv"


@pytest.mark.parametrize("shift", [0, 1, 9, 10])
def test_a_submission_is_checked_and_scored(
    own_challenge: Path, shift: int, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = 1 / np.arange(1, 11)
    expected = weights[shift:].sum() / weights.sum()  # recall@k is 1 from k = shift + 1 on
    file = write_answers(own_challenge, shift)
    assert validate.main(["submission", str(file), "--data_dir", str(own_challenge)]) == 0
    form, score = capsys.readouterr().out.splitlines()
    assert (
        form == f"{file}: form is right, 3 queries"
        and score == f"score {expected:.4f} +- 0.0000 (3 queries)"
    )


def test_the_score_is_the_readmes_formula_on_a_mixed_submission(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_answers(own_challenge)
    header, first, second, third = file.read_text().splitlines()
    query, *ranked = second.split(",")
    second = ",".join([query, *ranked[1:3], ranked[0], *ranked[3:]])  # found at rank 3
    query, right, *rest = third.split(",")
    unused = next(str(number) for number in range(1, 13) if str(number) not in (right, *rest))
    third = ",".join([query, *rest, unused])  # not found
    file.write_text("\n".join([header, first, second, third]) + "\n")
    recalls = [1 / 3] * 2 + [2 / 3] * 8
    score = sum(recall / k for k, recall in enumerate(recalls, 1)) / sum(
        1 / k for k in range(1, 11)
    )
    assert (
        validate.main(["submission", str(file), "--data_dir", str(own_challenge), "--verbose"]) == 0
    )
    _, *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [f"  recall@{k} {recall:.4f}" for k, recall in enumerate(recalls, 1)]
    assert last.startswith(f"score {score:.4f} +- ") and last.endswith("(3 queries)")


def test_without_answers_the_form_alone_is_checked(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_answers(own_challenge)
    elsewhere = (own_challenge / "test" / "gt.csv").rename(own_challenge / "truth.csv")
    assert validate.main(["submission", str(file), "--data_dir", str(own_challenge)]) == 0
    assert capsys.readouterr().out == f"{file}: form is right, 3 queries\n"
    assert (
        validate.main(
            ["submission", str(file), "--data_dir", str(own_challenge), "--gt", str(elsewhere)]
        )
        == 0
    )
    assert "score 1.0000" in capsys.readouterr().out
    assert (
        validate.main(
            [
                "submission",
                str(file),
                "--data_dir",
                str(own_challenge),
                "--gt",
                str(own_challenge / "none.csv"),
            ]
        )
        == 1
    )
    assert error_line(capsys).startswith(f"error: {own_challenge / 'none.csv'}: cannot be read")


def test_another_test_folder_has_answers_of_its_own(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_answers(own_challenge)
    moved = (own_challenge / "test").rename(own_challenge / "held_out")
    assert (
        validate.main(
            ["submission", str(file), "--data_dir", str(own_challenge), "--test_dir", str(moved)]
        )
        == 0
    )
    assert "score 1.0000" in capsys.readouterr().out


def test_a_submission_of_the_wrong_form_is_one_line_and_gets_no_score(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_answers(own_challenge)
    table = list(csv.reader(file.read_text().splitlines()))
    table[2][4] = table[2][3]
    file.write_text("".join(",".join(cells) + "\n" for cells in table))
    assert validate.main(["submission", str(file), "--data_dir", str(own_challenge)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines()[-1].startswith(
        f"error: {file}: line 3, column candidate_4: "
    )


def test_our_own_warnings_are_one_line(
    own_challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_challenge / "test" / "notes").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert (
            validate.main(
                ["submission", str(write_answers(own_challenge)), "--data_dir", str(own_challenge)]
            )
            == 0
        )
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and all(
        line.startswith(f"warning: {own_challenge / 'test'}: ") for line in err
    )
    assert "notes" in err[0]


@pytest.mark.parametrize(
    "args",
    [
        ["nothing"],
        ["submission"],
        ["submission", "a.csv", "--color", "red"],
        ["make_batches", "--queries", "x"],
    ],
)
def test_a_wrong_command_line_exits_with_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        validate.main(args)
    assert exit_info.value.code == 2


@pytest.mark.parametrize(
    "command", [[], ["submission"], ["make_batches"], ["make-batches"], ["oof"]]
)
def test_help_exits_with_0(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        validate.main([*command, "--help"])
    assert exit_info.value.code == 0 and "usage" in capsys.readouterr().out.lower()
