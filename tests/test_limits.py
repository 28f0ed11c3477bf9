"""Limits that no file of a data folder or a run folder passes.

Opening a file runs no code, nothing is written outside the folders that flags name, and what is
shown steers neither terminal, spreadsheet nor browser.
"""

import ast
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import helpers
import search
import validate
from motret.config import base, cli
from motret.config.training import TextConfig, TrainConfig
from motret.data import dataset
from motret.errors import ConfigError, DataError, RunError, WeightsError, printable
from motret.formats import challenge, submission
from motret.formats.queries import read_queries
from motret.kaggle import inputs
from motret.models import registry
from motret.report import page
from motret.report.page import CandidateView, Overview, PageContent, QueryView
from motret.runs import text_towers
from motret.runs.run import list_runs, open_run
from motret.training import fit
from motret.utils import logs, reading

SOLUTION = Path(__file__).resolve().parents[1] / "solution"


def write_query(folder: Path, text: str = "they bow\n", candidates: int = 10) -> Path:
    folder.mkdir(parents=True)
    (folder / "text.txt").write_text(text)
    for number in range(1, candidates + 1):
        np.save(folder / f"motion_{number}.npy", np.zeros((6, 192), np.float32))
    return folder


# ---- nothing that a file names is imported or called


def name_tower(run, setting: str, value: str) -> Path:
    path = run.folder / "args.json"
    content = json.loads(path.read_text())
    content["settings"][setting] = value
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("setting", ["motion_tower", "text_tower"])
@pytest.mark.parametrize("value", ["os:system", "subprocess:Popen", "builtins:exec", "harm:Tower"])
def test_a_class_that_a_run_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    (tmp_path / "harm.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = helpers.made_run(tmp_path / "runs", "one")
    path = name_tower(run, setting, value)
    with pytest.raises(RunError, match=f"--allow_towers {value}") as caught:
        open_run(run.folder)
    assert caught.value.path == str(path) and not (tmp_path / "harm").exists()
    with pytest.warns(UserWarning, match="left out: .*what a file names is not imported"):
        assert list_runs(tmp_path / "runs") == []
    assert open_run(run.folder, [value]).name == "one"


def test_an_allowed_class_must_be_a_module() -> None:
    config = base.build_config(TextConfig, {"text_tower": "os:system"})
    with pytest.raises(ConfigError, match="system is no TextTower"):
        registry.make_text_tower(config)


def test_a_class_in_the_table_of_variants_is_a_persons_own_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from motret.config import presets

    run = helpers.made_run(tmp_path, "one")
    name_tower(run, "motion_tower", "my_tower:Bag")
    monkeypatch.setitem(presets.VARIANTS, "bag", {"motion_tower": "my_tower:Bag"})
    assert open_run(run.folder).config.motion.motion_tower == "my_tower:Bag"


def test_a_list_in_args_json_allows_nothing(tmp_path: Path) -> None:
    run = helpers.made_run(tmp_path, "one")
    name_tower(run, "motion_tower", "os:system")
    path = run.folder / "args.json"
    content = json.loads(path.read_text())
    content["settings"]["allow_towers"] = ["os:system"]
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="not imported"):
        open_run(run.folder)


def test_packed_towers_name_no_class_and_nothing_outside(tmp_path: Path) -> None:
    entry = text_towers.PackedTower("os:system", "none", "tower")
    text_towers.write_index(tmp_path, [entry])
    found = inputs.AttachedInputs(tmp_path, towers=[tmp_path])
    assert found.text_tower_flags("full", "") == []
    entry = text_towers.PackedTower("hf:x", "none", "../../elsewhere")
    text_towers.write_index(tmp_path, [entry])
    with pytest.raises(DataError, match="outside its folder"):
        found.text_tower_flags("full", "")
    with pytest.raises(RunError, match="is not in its folder"):
        text_towers.read_index(tmp_path)


def test_an_encoder_with_code_of_its_own_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    code = f"open({str(tmp_path / 'harm')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    (tmp_path / "modeling.py").write_text(code)
    settings = {"model_type": "mine", "auto_map": {"AutoConfig": "modeling.Config"}}
    settings["auto_map"]["AutoModel"] = "modeling.Model"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"^hf:.*no such encoder can be loaded \(.+\) \(.+\)$"):
        registry.make_text_tower(base.build_config(TextConfig, {"text_tower": f"hf:{tmp_path}"}))
    assert not (tmp_path / "harm").exists()


# ---- folders and links


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/escaped", "a/b", "..", ".", "", "a\nb", "=x"]
)
def test_the_name_of_a_run_is_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--run_name: .*is not the name of a folder"):
        base.build_config(TrainConfig, {"run_name": name})


def test_a_text_that_links_out_of_the_data_is_left_out_and_named(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret\n")
    root = helpers.write_data(tmp_path / "data", ["1", "2"])
    (root / "texts/2.txt").unlink()
    (root / "texts/2.txt").symlink_to(secret)
    training = challenge.read_training(root)
    (skipped,) = training.skipped
    assert training.ids == ("1",) and "is a link out of the data folder" in skipped.problem
    with pytest.raises(DataError, match="give --follow_links"):
        challenge.read_training(root, strict=True)
    assert challenge.read_training(root, follow_links=True).captions[1] == ("a secret",)
    flags = cli.parse(validate.OofConfig, ["--follow_links"], None)
    assert flags.data.follow_links


@pytest.mark.parametrize("name", ["train.txt", "groups.csv"])
def test_a_list_that_links_out_of_the_data_is_an_error(tmp_path: Path, name: str) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2"], groups={"1": "a", "2": "b"})
    (root / name).rename(tmp_path / name)
    (root / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: is a link out of the data folder"):
        challenge.read_training(root)
    assert challenge.read_training(root, follow_links=True).ids == ("1", "2")


@pytest.mark.parametrize("name", ["train.txt", "groups.csv", "motions", "texts"])
@pytest.mark.parametrize("kind", ["itself", "pipe"])
def test_what_is_there_but_unreadable_is_never_taken_for_absent(
    tmp_path: Path, name: str, kind: str
) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2"], groups={"1": "a", "2": "b"})
    (root / name).rename(tmp_path / name)
    if kind == "pipe":
        os.mkfifo(root / name)
    else:
        (root / name).symlink_to(name)
    with pytest.raises(DataError, match=f"{name}: (cannot be read: Too many|is a named pipe)"):
        dataset.read_training(root)


def test_pipes_and_devices_among_the_files_are_named(tmp_path: Path) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2", "3"])
    (root / "texts/2.txt").unlink()
    os.mkfifo(root / "texts/2.txt")
    (root / "motions/3.npy").unlink()
    (root / "motions/3.npy").symlink_to("/dev/zero")
    training = challenge.read_training(root)
    problems = {Path(skipped.file).name: skipped.problem for skipped in training.skipped}
    assert training.ids == ("1",)
    assert problems["2.txt"] == "is a named pipe, not a file"
    assert problems["3.npy"] == "is a device, not a file"


@pytest.mark.parametrize("name", ["train.txt", "groups.csv", "texts/2.txt"])
def test_a_device_in_place_of_a_text_or_a_list_is_one_line(tmp_path: Path, name: str) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2"], groups={"1": "a", "2": "b"})
    (root / name).unlink()
    (root / name).symlink_to("/dev/zero")
    for follows in (False, True):
        with pytest.raises(DataError, match=f"{name}: is a device, not a file"):
            challenge.read_training(root, strict=True, follow_links=follows)


def test_a_text_with_a_nul_is_left_out_and_named(tmp_path: Path) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2"])
    (root / "texts/2.txt").write_bytes(b"they bow\0\n")
    training = challenge.read_training(root)
    (skipped,) = training.skipped
    assert training.ids == ("1",) and skipped.file == str(root / "texts/2.txt")
    assert skipped.problem == "a NUL at byte 8, so it is no text"


def test_a_candidate_that_is_a_pipe_is_one_line(tmp_path: Path) -> None:
    folder = write_query(tmp_path / "test/1")
    (folder / "motion_3.npy").unlink()
    os.mkfifo(folder / "motion_3.npy")
    config = helpers.data_settings(tmp_path, strict=True)
    features = dataset.FeatureConfig()
    with pytest.raises(DataError, match=r"motion_3\.npy: is a named pipe, not a file"):
        dataset.load_test(tmp_path / "test", features, config, jobs=1)


def test_nothing_is_written_through_links_of_a_run(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / "fold0").symlink_to(outside)
    with pytest.raises(RunError, match=r"fold0: is a link out of its folder, to .*outside"):
        reading.check_output(run / "fold0", run, RunError)
    (tmp_path / "link").symlink_to(run)
    reading.check_output(tmp_path / "link" / "fold1", tmp_path / "link", RunError)
    log = run / "train_log.txt"
    log.symlink_to(outside / "profile")
    (outside / "profile").write_text("as it was")
    with fit._open_log(log) as logger:
        logger.info("epoch 1")
    assert (outside / "profile").read_text() == "as it was"
    assert "epoch 1" in log.read_text() and not log.is_symlink()


# ---- ids


BAD_IDS = ["..a", "a..b", "=1+1", "@sum", "+cmd", "-cmd", "a\nb", "a\x1b[2J", "a\u202eb", "\udcff"]


@pytest.mark.parametrize("name", BAD_IDS)
def test_the_name_of_a_query_is_one_line_where_it_is_no_id(tmp_path: Path, name: str) -> None:
    write_query(tmp_path / "test" / name)
    with pytest.raises(DataError, match=r": id '") as caught:
        read_queries(tmp_path / "test")
    assert printable(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize("name", BAD_IDS)
def test_a_motion_whose_name_is_no_id_is_left_out(tmp_path: Path, name: str) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "x"])
    (root / "train.txt").unlink()
    for path in (root / "motions/x.npy", root / "texts/x.txt"):
        path.rename(path.with_name(name + path.suffix))
    training = challenge.read_training(root)
    assert training.ids == ("1",)
    assert len(training.skipped) == (0 if name[0] == "." else 1)  # hidden files are none


@pytest.mark.parametrize("name", ["-1", "+2.5", "1", "M01", "walk (2)", "走る", "a.b"])
def test_other_names_are_ids(tmp_path: Path, name: str) -> None:
    assert challenge.id_problem(name) == ""


def test_no_cell_of_a_submission_is_a_formula(tmp_path: Path) -> None:
    for query in ("=1+1", "@x", "+y"):
        with pytest.raises(DataError, match="which a spreadsheet would run"):
            submission.write_submission(tmp_path / "a.csv", {query: range(1, 11)})


# ---- what is shown


HARM = "</script><script>alert(1)</script>\x1b]0;taken\x07\u202e<img src=x onerror=alert(1)>"


def test_pages_forbid_every_script_but_their_own() -> None:
    candidate = CandidateView("motion_1", Path("none"), 1, 0.5, (HARM,))
    query = QueryView(HARM, (HARM,), (candidate,), 1, "motion_1")
    content = PageContent(HARM, Overview((("fact", HARM),), note=HARM), (query,))
    html = page.render(content, page.pack_all(content))
    assert "<script>alert" not in html and "<img src=x" not in html
    policy = html.split('http-equiv="Content-Security-Policy" content="')[1].split('"')[0]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].startswith("'sha256-") and "unsafe" not in rules["script-src"]
    assert html.index("Content-Security-Policy") < html.index("<script")


def test_every_page_of_the_package_comes_from_the_one_template() -> None:
    writers = [
        path
        for path in (SOLUTION / "motret").rglob("*.py")
        if "<html" in (text := path.read_text(encoding="utf-8")) or "<!doctype" in text.lower()
    ]
    assert not writers


def test_errors_and_logs_show_escape_sequences_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("a\x1b[31mb", "caption 'x\u202ey\r\n'", "mend\x00it")
    assert str(error) == r"a\x1b[31mb: caption 'x\u202ey\r\n' (mend\x00it)"
    logs.show_logs()
    logs.logging.getLogger("motret.test").info("one\x1b[2J\ntwo\tthree")
    assert capsys.readouterr().out == "one\\x1b[2J\ntwo\tthree\n"


def test_a_terminal_that_is_not_utf8_stops_nothing(tmp_path: Path) -> None:
    root = helpers.write_data(tmp_path / "données", ["走る", "2"])
    (root / "train.txt").write_text("走る\nfehlt→\n")
    folders = [f"--{name}_dir={tmp_path / name}" for name in ("work", "folds")]
    command = [sys.executable, str(SOLUTION / "prepare.py"), f"--data_dir={root}", *folders]
    done = subprocess.run(
        [*command, "--jobs=1"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert rb"fehlt\u2192" in done.stdout


def test_the_search_shows_captions_escaped() -> None:
    assert search.printable("a\x1b[2J\nb") == r"a\x1b[2J\nb"


# ---- sizes


def test_a_long_caption_is_left_out_and_says_so(tmp_path: Path) -> None:
    root = helpers.write_data(tmp_path / "data", ["1", "2"], {"2": ["right arm and " * 10_000]})
    (skipped,) = challenge.read_training(root).skipped
    assert skipped.problem == "a caption of 139,999 characters, at most 5,000 are read"


@pytest.mark.parametrize("name", ["train.txt", "groups.csv", "texts/1.txt"])
def test_a_line_of_gigabytes_is_refused_by_its_size(tmp_path: Path, name: str) -> None:
    root = helpers.write_data(tmp_path / "data", ["1"], groups={"1": "a"})
    with (root / name).open("r+b") as stream:
        stream.truncate(5 * 10**9)  # takes no space on the disk
    with pytest.raises(DataError, match=r"has 5,000\.0 MB, and at most"):
        challenge.read_training(root, strict=True)


LINEAR = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (90, 90))  # work that grows with the square takes hours
sys.path.insert(0, {solution!r})
from motret.data import caption_mirror, captions, side_words
from motret.data.parts import caption_parts
from motret.formats import gar, text_files
if sys.argv[1] == "patterns":
    modules = captions, side_words, caption_parts, gar, text_files
    patterns = [each for module in modules for each in vars(module).values()
                if isinstance(each, re.Pattern)]
    assert len(patterns) > 20
    for piece in {pieces!r}:
        text = (piece * (10**6 // len(piece) + 1))[:10**6]
        for pattern in patterns:
            for _ in pattern.finditer(text):
                pass
else:
    for piece in {pieces!r}:
        text = (piece * (10**5 // len(piece) + 1))[:10**5]
        captions.named_sides(text), captions.names_both_persons(text)
        caption_parts.parts_from_caption(text), caption_mirror.mirror_caption(text[: 10**4])
        text_files.without_humanml3d_suffix(text + "#0.0#0.0")
"""
PIECES = ["right arm and ", "to the ", " ", "a", "#a/b ", "right upper ", "left ", "and walkly "]


@pytest.mark.parametrize("what", ["patterns", "functions"])
def test_the_work_on_a_text_grows_with_its_length(what: str) -> None:
    code = LINEAR.format(solution=str(SOLUTION), pieces=PIECES)
    done = subprocess.run([sys.executable, "-c", code, what], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-500:]


# ---- one boundary


BOUNDARIES = {
    "motret/utils/reading.py": 1,  # what is read, and code of others
    "motret/config/cli.py": 1,  # what a script ends with
}
"""File -> its places that catch whatever goes wrong."""


def catches_everything(node: ast.AST) -> bool:
    """Whether an `except` or a `suppress` takes errors of every kind."""
    if isinstance(node, ast.ExceptHandler):
        named = [node.type]
    elif isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
        named = [*node.args]
    else:
        return False
    words = {word for each in named if each for word in re.findall(r"\w+", ast.unparse(each))}
    return None in named or not words.isdisjoint({"Exception", "BaseException"})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("try: f()\nexcept: g()", True),
        ("try: f()\nexcept (KeyError, Exception) as error: g()", True),
        ("try: f()\nexcept* builtins.BaseException: g()", True),
        ("with contextlib.suppress(Exception): f()", True),
        ("try: f()\nexcept (OSError, optuna.exceptions.StorageError): g()", False),
        ("with suppress(OSError): f(Exception)", False),
    ],
)
def test_what_catches_everything_is_found(code: str, expected: bool) -> None:
    assert any(map(catches_everything, ast.walk(ast.parse(code)))) is expected


def test_whatever_can_go_wrong_is_caught_at_the_boundaries_alone() -> None:
    catching = {
        str(path.relative_to(SOLUTION)): count
        for path in SOLUTION.rglob("*.py")
        if (count := sum(map(catches_everything, ast.walk(ast.parse(path.read_text("utf-8"))))))
    }
    assert catching == BOUNDARIES
