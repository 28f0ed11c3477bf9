"""The command line: the source of each value, wrong flags, and errors in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ensemble
import make_folds
import prepare
import sample
import train
import validate
from motret.config import base, cli, presets
from motret.config.training import TrainConfig
from motret.errors import ConfigError, DataError, MotretError

SCRIPTS = {
    "sample": sample,
    "prepare": prepare,
    "make_folds": make_folds,
    "train": train,
    "ensemble": ensemble,
    "validate": validate,
}


# ---- precedence


def test_each_value_comes_from_the_first_that_gives_it_and_the_source_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(presets.VARIANTS, "wide", {"width": 512, "layers": 6, "lr": 1e-3})
    args = ["wide", "--preset", "full", "--epochs", "7"]
    config, sources = cli.parse_train(args, None, {"lr": 3e-3, "tau": 0.05, "epochs": 9})
    values = base.flatten(config)
    assert {
        name: (values[name], sources[name])
        for name in ("epochs", "lr", "tau", "folds", "layers", "width", "heads")
    } == {
        "epochs": (7, "flag"),  # over the tuned value and the preset
        "lr": (3e-3, "tuned"),  # over the variant
        "tau": (0.05, "tuned"),
        "folds": (5, "preset full"),
        "layers": (6, "variant wide"),
        "width": (512, "variant wide"),
        "heads": (4, "default"),
    }
    assert (values["variant"], sources["variant"], values["preset"], sources["preset"]) == (
        "wide",
        "variant wide",
        "full",
        "flag",
    )


def test_a_preset_wins_over_the_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.VARIANTS, "wide", {"width": 512, "heads": 8})
    config, sources = cli.parse_train(["wide", "--preset", "fast"], None)
    assert (
        (config.motion.width, sources["width"])
        == (128, "preset fast")
        == (presets.PRESETS["fast"].values["width"], "preset fast")
    )
    assert (config.motion.heads, sources["heads"]) == (8, "variant wide")


def test_without_flags_all_is_default() -> None:
    config, sources = cli.parse_train([], None)
    assert config == TrainConfig()
    assert sources == dict.fromkeys(base.flag_defaults(TrainConfig), "default")
    assert cli.parse_train(["holistic"], None)[1]["variant"] == "variant holistic"


def test_every_value_of_a_preset_arrives_and_every_setting_has_a_source() -> None:
    for name, preset in presets.PRESETS.items():
        config, sources = cli.parse_train(["--preset", name], None)
        values = base.flatten(config)
        assert {key: values[key] for key in preset.values} == dict(preset.values)
        assert {key for key, source in sources.items() if source == f"preset {name}"} == set(
            preset.values
        )
        assert sources.keys() == values.keys() == base.flag_defaults(TrainConfig).keys()


@pytest.mark.parametrize(
    "flags", [["--batch_size", "8"], ["--batch-size", "8"], ["--batch_size=8"], ["--batch-size=8"]]
)
def test_dashes_underscores_and_equals_signs_are_all_the_same(flags: list[str]) -> None:
    config, sources = cli.parse_train(["--preset", "fast", *flags], None)
    assert (config.fit.batch_size, sources["batch_size"], sources["epochs"]) == (
        8,
        "flag",
        "preset fast",
    )


@pytest.mark.parametrize(
    ("flag", "value"), [("--learn_tau", True), ("--no_learn_tau", False), ("--no-learn-tau", False)]
)
def test_a_switch_can_be_put_on_and_off(flag: str, value: bool) -> None:
    config, sources = cli.parse_train([flag], None, {"learn_tau": not value})
    assert (config.loss.learn_tau, sources["learn_tau"]) == (value, "flag")


@pytest.mark.parametrize(
    "flags", [["--preset", "fast", "--preset", "full"], ["--preset=fast", "--preset=full"]]
)
def test_of_a_flag_given_twice_the_last_counts_for_all_that_follows_from_it(
    flags: list[str],
) -> None:
    config, sources = cli.parse_train(flags, None)
    assert (config.preset, config.folds, sources["folds"]) == (
        "full",
        presets.PRESETS["full"].values["folds"],
        "preset full",
    )
    assert config.motion.width == TrainConfig().motion.width


@pytest.mark.parametrize(
    ("args", "tuned", "message"),
    [
        (["cubist"], None, "train.py: no variant is called 'cubist' (choose from holistic"),
        ([], {"learning_rate": 1}, "tuned: no setting is called 'learning_rate'"),
        (["--fold", "last"], None, "--fold: 'last' is no fold"),
        (["--heads", "3"], None, "--heads: 3 heads do not divide a width of 256"),
        (["--width", "66"], None, "--heads: 4 heads do not divide a width of 66"),
        (["--token_drop", "1"], None, "--token_drop: 1.0 is no fraction below 1"),
        (["--mirror", "1.5"], None, "--mirror: 1.5 is no fraction (give a number from 0 to 1)"),
        (["--cross_person_layers", "9"], None, "--cross_person_layers: 9 of 4 layers"),
        (["--tau", "0"], None, "--tau: 0.0 is no temperature"),
        (["--jobs", "0"], None, "--jobs: 0 processes"),
        (["--seed", "-1"], None, "--seed: is -1"),
        (["--fps", "0"], None, "--fps: is 0"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error_that_names_its_flag(
    args: list[str], tuned: dict | None, message: str
) -> None:
    with pytest.raises(ConfigError) as error_info:
        cli.parse_train(args, None, tuned)
    assert str(error_info.value).startswith(message)


def test_a_variant_that_sets_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.VARIANTS, "odd", {"color": "red"})
    with pytest.raises(ConfigError, match="variant odd: no setting is called 'color'"):
        cli.parse_train(["odd"], None)


# ---- scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_flag_exits_with_2_and_is_named(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        SCRIPTS[name].main([*(["oof"] if name == "validate" else []), "--color", "red"])
    assert exit_info.value.code == 2 and "--color" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_exits_with_0_and_says_what_the_script_does(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        SCRIPTS[name].main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert exit_info.value.code == 0 and SCRIPTS[name].__doc__.splitlines()[0] in printed


@pytest.mark.parametrize("name", ["prepare", "make_folds", "train", "validate"])
def test_an_error_is_one_line_and_exit_code_1(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        *(["make_batches"] if name == "validate" else []),
        "--data_dir",
        str(tmp_path / "gone"),
        "--work_dir",
        str(tmp_path / "work"),
    ]
    assert SCRIPTS[name].main(args) == 1
    captured = capsys.readouterr()
    assert (
        captured.out == ""
        and captured.err.startswith(f"error: {tmp_path / 'gone'}: no such folder (")
        and captured.err.count("\n") == 1
    )
    assert not (tmp_path / "work").exists()


def test_debug_raises_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare.main(["--data_dir", str(tmp_path / "gone"), "--debug"])


@pytest.mark.parametrize(("flags", "traceback"), [([], False), (["--debug"], True)])
def test_a_script_in_its_own_process_shows_a_traceback_only_under_debug(
    tmp_path: Path, flags: list[str], traceback: bool
) -> None:
    script = base.ROOT / "solution" / "make_folds.py"
    command = [sys.executable, str(script), "--data_dir", str(tmp_path / "gone"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and ("Traceback" in done.stderr) == traceback
    assert traceback or (done.stderr.startswith("error: ") and done.stderr.count("\n") == 1)


def test_a_break_from_the_keyboard_is_one_line_and_other_errors_are_not_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def raises(error: BaseException):
        def main(_argv=None):
            raise error

        return cli.command(main)

    assert raises(KeyboardInterrupt())([]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        raises(ZeroDivisionError())([])
    assert raises(MotretError("a.npy", "is bad", "replace it"))([]) == 1
    assert capsys.readouterr().err == "error: a.npy: is bad (replace it)\n"


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_wants_them_to_spin(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if before:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    assert cli.command(lambda _: 0 if os.environ["OMP_WAIT_POLICY"] == after else 1)([]) == 0


def test_raw_columns_are_not_mirrored():
    with pytest.raises(ConfigError, match="--mirror: raw columns cannot be mirrored"):
        cli.parse_train(["clip_readme", "--mirror", "0.5"], None)


def test_the_commands_of_the_sgar_description_are_understood():
    first = "--use_gar --lambda_part 1.0 --batch_size 64 --epochs 1000 --lr 1e-4 --eval_interval 10"
    more = (
        " --backbone_lr_mult 0.1 --weight_decay 1e-4 --warmup_epochs 5 --grad_clip 1.0"
        " --grad_accum 1 --tau 0.07 --tau_prime 0.05 --proj_dim 512 --save_attention"
        " --attn_interval 10 --run_qualitative --qualitative_interval 50 --amp --prefer_txt_split"
        " --out_dir ./outputs --max_frames 196 --freeze_backbone --early_stop_patience 5"
        " --save_every 50 --id_width 5"
    )
    for command in (first, first + more, f"--resume ./outputs/run_1/best_epoch100.pt {first}"):
        config, sources = cli.parse_train(command.split(), None)
        assert config.variant == "sgar" and config.parts.use_gar and config.fit.epochs == 1000
        assert config.motion.motion_tower == "part"
        assert sources["use_gar"] == "flag"
    config, _ = cli.parse_train((first + more).split(), None)
    assert config.fit.amp == "on" and config.prefer_txt_split
    assert config.motion.max_frames == 196 and config.snapshots.save_attention


@pytest.mark.parametrize(
    ("command", "variant", "amp"),
    [
        ("holistic --amp", "holistic", "on"),
        ("--amp off", "holistic", "off"),
        ("holistic --epochs 3", "holistic", "auto"),
        ("--use-gar --batch-size 8", "sgar", "auto"),
    ],
)
def test_amp_without_a_value_is_on_and_use_gar_without_a_variant_is_sgar(
    command: str, variant: str, amp: str
) -> None:
    config, _ = cli.parse_train(command.split(), None)
    assert (config.variant, config.fit.amp) == (variant, amp)


def test_the_value_of_a_flag_is_no_variant():
    for flag in ("--out_dir clip", "--run_name sgar", "--resume=clip", "--work-dir clip"):
        flags = flag.split()
        assert cli.parse_train(flags, None)[0].variant == "holistic"
        assert cli.parse_train([*flags, "clip_readme"], None)[0].variant == "clip_readme"
    for switch, variant in (("--no_learn_tau", "clip"), ("--unfreeze-text", "sgar")):
        assert cli.parse_train([switch, variant], None)[0].variant == variant


def test_variants_to_tune_may_stand_anywhere():
    flags = ["--preset", "fast", "--lr=1e-3"]
    for args in (["holistic", "sgar", *flags], [*flags[:2], "holistic", "sgar", *flags[2:]]):
        config, train_flags = cli.parse_tune(args, None)
        assert (config.variants, config.preset) == (("holistic", "sgar"), "fast")
        assert train_flags == {"preset": "fast", "lr": 1e-3}
    args = ["--lr", "1e-3", "--unfreeze_text", "holistic", "--out_dir", "clip"]
    config, train_flags = cli.parse_tune(args, None)
    assert config.variants == ("holistic",) and config.out_dir == Path("clip")
    assert train_flags == {"lr": 1e-3, "unfreeze_text": True, "out_dir": Path("clip")}


@pytest.mark.parametrize("args", [["--color", "red"], ["--lr", "fast"], ["--trials", "many"]])
def test_a_wrong_flag_of_either_script_ends_the_tuning_with_2(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.parse_tune(["holistic", *args], None)
    assert exit_info.value.code == 2 and args[0] in capsys.readouterr().err


def test_flags_by_name_are_worth_the_same_as_arguments() -> None:
    args = ["sgar", "--preset", "fast", "--lr", "1e-3", "--no_learn_tau"]
    flags = {"variant": "sgar", "preset": "fast", "lr": 1e-3, "learn_tau": False}
    assert cli.train_settings(flags) == cli.parse_train(args, None)


def test_a_wrong_value_is_reported_with_the_help_of_its_flag(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.parse_train(["--epochs", "many"], None)
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert exit_info.value.code == 2
    assert printed.count("Error parsing --epochs") == 1
    assert "Passes over the training folds" in printed


def test_help_shows_the_defaults_of_the_variant_and_the_preset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.parse_train(["clip_readme", "--help"], None)
    assert "(default: 512)" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--joint_layers", "--joint-layers"])
def test_flags_may_have_their_former_names(flag: str) -> None:
    configs = []
    main = cli.command(lambda argv: configs.append(cli.parse_train(argv, None)[0]) or 0)
    assert main([flag, "0"]) == main([f"{flag}=0", "--save_halves"]) == 0
    assert [config.motion.cross_person_layers for config in configs] == [0, 0]
    assert [config.checkpoint.save_towers for config in configs] == [False, True]
