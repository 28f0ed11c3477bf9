"""Captions of motions without the motions: JSON files and folders of text."""

import json

import pytest

from motret.errors import DataError
from motret.formats.caption_files import read_caption_sets


def test_a_json_file_gives_the_captions_of_each_motion(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"a": ["one waves", "someone waves"], "b": ["they hug", "a hug"]}))
    assert read_caption_sets(path) == (("one waves", "someone waves"), ("they hug", "a hug"))


def test_a_folder_gives_the_lines_of_each_file(tmp_path):
    (tmp_path / "2.txt").write_text("they hug\na hug\n")
    (tmp_path / "1.txt").write_text("one waves\nsomeone waves\n")
    assert read_caption_sets(tmp_path) == (("one waves", "someone waves"), ("they hug", "a hug"))


def test_motions_without_a_second_caption_are_left_out(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"a": ["one waves", "one waves "], "b": ["hug", "a hug", "hug"]}))
    assert read_caption_sets(path) == (("hug", "a hug"),)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1, 2]", "holds a list"),
        ("{", "not JSON"),
        ('{"a": "one waves"}', "'a' is no list of captions"),
        ('{"a": ["one waves", 3]}', "'a' is no list of captions"),
        ('{"a": ["one waves"]}', "has no motion with two captions"),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path, content, problem):
    path = tmp_path / "captions.json"
    path.write_text(content)
    with pytest.raises(DataError, match=problem) as error:
        read_caption_sets(path)
    assert error.value.path == str(path) and "\n" not in str(error.value)


def test_a_folder_without_captions_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has no \.txt file"):
        read_caption_sets(tmp_path)
