"""The command line: where each value comes from, what wrong flags get, and that a fault is one line."""

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import ensemble
import make_folds
import prepare
import sample
import train
import validate
from motret.config import base, cli, presets, scripts, training
from motret.config.base import DataConfig, MachineConfig
from motret.config.training import TrainConfig
from motret.errors import ConfigError, DataError, MotretError

KINDS = [
    training.TrainConfig,
    scripts.PrepareConfig,
    scripts.FoldConfig,
    scripts.EnsembleConfig,
    scripts.OofConfig,
    scripts.SubmissionConfig,
    scripts.ValidationQueriesConfig,
    scripts.SampleConfig,
]
SCRIPTS = {"sample": sample, "prepare": prepare, "make_folds": make_folds, "train": train, "ensemble": ensemble, "validate": validate}


# ---- precedence


def test_each_value_comes_from_the_first_that_gives_it_and_the_source_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.VARIANTS, "wide", {"width": 512, "layers": 6, "lr": 1e-3})
    args = ["wide", "--preset", "full", "--epochs", "7"]
    config, sources = cli.parse_train(args, None, {"lr": 3e-3, "tau": 0.05, "epochs": 9})
    found = base.flatten(config)
    assert {name: (found[name], sources[name]) for name in ("epochs", "lr", "tau", "folds", "layers", "width", "heads")} == {
        "epochs": (7, "flag"),  # over the tuned value and the preset
        "lr": (3e-3, "tuned"),  # over the variant
        "tau": (0.05, "tuned"),
        "folds": (5, "preset full"),
        "layers": (6, "variant wide"),
        "width": (512, "variant wide"),
        "heads": (4, "default"),
    }
    assert (found["variant"], sources["variant"], found["preset"], sources["preset"]) == ("wide", "variant wide", "full", "flag")


def test_a_preset_wins_over_the_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.VARIANTS, "wide", {"width": 512, "heads": 8})
    config, sources = cli.parse_train(["wide", "--preset", "fast"], None)
    assert (config.motion.width, sources["width"]) == (128, "preset fast") == (presets.PRESETS["fast"].values["width"], "preset fast")
    assert (config.motion.heads, sources["heads"]) == (8, "variant wide")


def test_without_flags_all_is_default() -> None:
    config, sources = cli.parse_train([], None)
    assert config == TrainConfig()
    assert sources == dict.fromkeys(base.flag_defaults(TrainConfig), "default")
    assert cli.parse_train(["holistic"], None)[1]["variant"] == "variant holistic"


def test_every_value_of_a_preset_arrives_and_every_setting_has_a_source() -> None:
    for name, preset in presets.PRESETS.items():
        config, sources = cli.parse_train(["--preset", name], None)
        found = base.flatten(config)
        assert {key: found[key] for key in preset.values} == dict(preset.values)
        assert {key for key, source in sources.items() if source == f"preset {name}"} == set(preset.values)
        assert sources.keys() == found.keys() == base.flag_defaults(TrainConfig).keys()


@pytest.mark.parametrize("flags", [["--batch_size", "8"], ["--batch-size", "8"], ["--batch_size=8"], ["--batch-size=8"]])
def test_dashes_underscores_and_equals_signs_are_all_the_same(flags: list[str]) -> None:
    config, sources = cli.parse_train(["--preset", "fast", *flags], None)
    assert (config.fit.batch_size, sources["batch_size"], sources["epochs"]) == (8, "flag", "preset fast")


@pytest.mark.parametrize(("flag", "value"), [("--learn_tau", True), ("--no_learn_tau", False), ("--no-learn-tau", False)])
def test_a_switch_can_be_put_on_and_off(flag: str, value: bool) -> None:
    config, sources = cli.parse_train([flag], None, {"learn_tau": not value})
    assert (config.loss.learn_tau, sources["learn_tau"]) == (value, "flag")


@pytest.mark.parametrize("flags", [["--preset", "fast", "--preset", "full"], ["--preset=fast", "--preset=full"]])
def test_of_a_flag_given_twice_the_last_counts_for_all_that_follows_from_it(flags: list[str]) -> None:
    config, sources = cli.parse_train(flags, None)
    assert (config.preset, config.folds, sources["folds"]) == ("full", presets.PRESETS["full"].values["folds"], "preset full")
    assert config.motion.width == TrainConfig().motion.width


@pytest.mark.parametrize(
    ("args", "tuned", "said"),
    [
        (["cubist"], None, "train.py: no variant is called 'cubist' (choose from holistic"),
        (["--preset", "huge"], None, "--preset: no preset is called 'huge' (choose from fast, full"),
        ([], {"learning_rate": 1}, "tuned: no setting is called 'learning_rate'"),
        (["--fold", "last"], None, "--fold: 'last' is no fold"),
        (["--heads", "3"], None, "--heads: 3 heads do not divide a width of 256"),
        (["--width", "66"], None, "--heads: 4 heads do not divide a width of 66"),
        (["--token_drop", "1"], None, "--token_drop: 1.0 is no share below 1"),
        (["--cross_person_layers", "9"], None, "--cross_person_layers: 9 of 4 layers"),
        (["--tau", "0"], None, "--tau: 0.0 is no temperature"),
        (["--jobs", "0"], None, "--jobs: 0 processes"),
        (["--seed", "-1"], None, "--seed: is -1"),
        (["--fps", "0"], None, "--fps: is 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_a_fault_that_names_its_flag(args: list[str], tuned: dict | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cli.parse_train(args, None, tuned)
    assert str(caught.value).startswith(said)


def test_a_variant_that_sets_what_is_not_there_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.VARIANTS, "odd", {"colour": "red"})
    with pytest.raises(ConfigError, match="variant odd: no setting is called 'colour'"):
        cli.parse_train(["odd"], None)


# ---- the tables of settings


def leaves(kind: type) -> list[str]:
    names = []
    for item in fields(kind):
        value = base._default_of(item)
        names += leaves(type(value)) if is_dataclass(value) else [item.name]
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_flags_are_unique_over_the_groups(kind: type) -> None:
    names = leaves(kind)
    assert len(names) == len(set(names)) and set(names) == set(base.flag_defaults(kind))


@pytest.mark.parametrize("kind", [training.TrainConfig, scripts.EnsembleConfig, scripts.ValidationQueriesConfig])
def test_settings_built_from_their_own_values_are_the_same(kind: type) -> None:
    changed = base.build_config(kind, {"data_dir": Path("elsewhere"), "seed": 5, "fps": 25.0})
    assert (changed.data, changed.machine) == (DataConfig(data_dir=Path("elsewhere"), fps=25.0), MachineConfig(seed=5))
    assert base.build_config(kind, base.flatten(changed)) == changed != base.build_config(kind, {})


def test_default_paths_are_those_of_settings_json_seen_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "SETTINGS.json").write_text('{"data_dir": "input/motions", "work_dir": "work", "folds_dir": "folds"}')
    monkeypatch.setattr(base, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert DataConfig().data_dir == Path("input/motions")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert DataConfig().data_dir == tmp_path / "input" / "motions"


# ---- scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_flag_exits_with_2_and_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        SCRIPTS[name].main([*(["oof"] if name == "validate" else []), "--colour", "red"])
    assert left.value.code == 2 and "--colour" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_exits_with_0_and_tells_what_the_script_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        SCRIPTS[name].main(["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert left.value.code == 0 and SCRIPTS[name].__doc__.split(":")[0].split(",")[0] in said


@pytest.mark.parametrize("name", ["prepare", "make_folds", "train", "validate"])
def test_a_fault_is_one_line_and_exit_code_1(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [*(["make_batches"] if name == "validate" else []), "--data_dir", str(tmp_path / "gone"), "--work_dir", str(tmp_path / "work")]
    assert SCRIPTS[name].main(args) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"error: {tmp_path / 'gone'}: no such folder (") and captured.err.count("\n") == 1
    assert not (tmp_path / "work").exists()


def test_debug_lets_the_fault_through(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare.main(["--data_dir", str(tmp_path / "gone"), "--debug"])


@pytest.mark.parametrize(("flags", "traceback"), [([], False), (["--debug"], True)])
def test_a_script_of_its_own_process_shows_a_traceback_only_under_debug(tmp_path: Path, flags: list[str], traceback: bool) -> None:
    script = base.ROOT / "solution" / "make_folds.py"
    command = [sys.executable, str(script), "--data_dir", str(tmp_path / "gone"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and ("Traceback" in done.stderr) == traceback
    assert traceback or (done.stderr.startswith("error: ") and done.stderr.count("\n") == 1)


def test_a_break_from_the_keyboard_is_one_line_and_other_errors_are_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    def raises(error: BaseException):
        def main(argv=None):
            raise error

        return cli.command(main)

    assert raises(KeyboardInterrupt())([]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        raises(ZeroDivisionError())([])
    assert raises(MotretError("a.npy", "is bad", "mend it"))([]) == 1
    assert capsys.readouterr().err == "error: a.npy: is bad (mend it)\n"


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_wants_them_to_spin(before: str | None, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if before:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    assert cli.command(lambda argv: 0 if os.environ["OMP_WAIT_POLICY"] == after else 1)([]) == 0


def test_raw_columns_are_not_mirrored():
    with pytest.raises(ConfigError, match="--mirror: raw columns are not mirrored"):
        cli.parse_train(["clip_readme", "--mirror", "0.5"], None)


def test_the_commands_of_the_sgar_description_are_understood():
    first = "--use_gar --lambda_part 1.0 --batch_size 64 --epochs 1000 --lr 1e-4 --eval_interval 10"
    more = (
        " --backbone_lr_mult 0.1 --weight_decay 1e-4 --warmup_epochs 5 --grad_clip 1.0 --grad_accum 1 --tau 0.07 --tau_prime 0.05"
        " --proj_dim 512 --save_attention --attn_interval 10 --run_qualitative --qualitative_interval 50 --amp --prefer_txt_split"
        " --out_dir ./outputs --max_frames 196 --freeze_backbone --early_stop_patience 5 --save_every 50 --id_width 5"
    )
    for command in (first, first + more, f"--resume ./outputs/run_1/best_epoch100.pt {first}"):
        config, sources = cli.parse_train(command.split(), None)
        assert config.variant == "sgar" and config.parts.use_gar and config.fit.epochs == 1000
        assert config.motion.motion_tower == "part" and sources["use_gar"] == "flag"
    whole, _ = cli.parse_train((first + more).split(), None)
    assert whole.fit.amp == "on" and whole.prefer_txt_split and whole.motion.max_frames == 196 and whole.snapshots.save_attention
    assert cli.parse_train(["holistic", "--amp"], None)[0].fit.amp == "on" and cli.parse_train(["--amp", "off"], None)[0].fit.amp == "off"
    assert cli.parse_train(["holistic", "--epochs", "3"], None)[0].variant == "holistic"
    assert cli.parse_train(["--use-gar", "--batch-size", "8"], None)[0].variant == "sgar"


def test_a_variant_is_a_word_of_its_own_not_the_value_of_a_flag():
    for flags in (["--out_dir", "clip"], ["--run_name", "sgar"], ["--resume=clip"], ["--work-dir", "clip"]):
        assert cli.parse_train(flags, None)[0].variant == "holistic"
        assert cli.parse_train([*flags, "clip_readme"], None)[0].variant == "clip_readme"
    assert cli.parse_train(["--no_learn_tau", "clip"], None)[0].variant == "clip"  # a switch has no value
    assert cli.parse_train(["--unfreeze-text", "sgar"], None)[0].variant == "sgar"


def test_variants_to_tune_may_stand_anywhere():
    for args in (["holistic", "sgar", "--preset", "fast", "--lr=1e-3"], ["--preset", "fast", "holistic", "sgar", "--lr=1e-3"]):
        asked, rest = cli.parse_tune(args, None)
        assert asked.variants == ("holistic", "sgar") and asked.preset == "fast" and rest == ["--preset", "fast", "--lr=1e-3"]
    asked, rest = cli.parse_tune(["--lr", "1e-3", "--unfreeze_text", "holistic", "--out_dir", "clip"], None)
    assert asked.variants == ("holistic",) and rest == ["--lr", "1e-3", "--unfreeze_text", "--out_dir", "clip"]
