"""The command line: flags into settings, the source of each value, and errors in one line."""

import contextlib
import functools
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, TextIO, TypedDict, TypeVar, Union, get_type_hints

import tyro

from motret.config import base, presets
from motret.config.scripts import TuneConfig
from motret.config.training import TrainConfig
from motret.errors import ConfigError, MotretError, printable
from motret.utils import logs, stopping
from motret.utils.system_errors import describe_system_error

ConfigT = TypeVar("ConfigT")
Args = Sequence[str] | None
"""Command-line arguments without the script; None: those of this process."""

STOPS_QUIETLY = "MOTRET_STOPS_QUIETLY"
"""Environment variable: set if the caller of a script reports Ctrl-C itself."""


def parse(
    kind: type[ConfigT], argv: Args, doc: str | None, defaults: Mapping[str, Any] | None = None
) -> ConfigT:
    """Settings of this kind from flags over `defaults`. Dashes in flags count as underscores.

    `--help` exits with 0, a wrong flag with 2, as tyro does.
    """
    over = {"default": base.build_config(kind, defaults)} if defaults else {}
    config: ConfigT = _tyro(kind, arguments(argv), description=doc, **over)
    return config


def parse_one_of(kinds: Mapping[str, type], argv: Args, doc: str | None) -> Any:
    """Settings of the kind that the first argument names; `make-batches` is `make_batches`."""
    args = arguments(argv)
    if args and (name := args[0].replace("-", "_")) in kinds:
        prog = f"{Path(sys.argv[0]).name} {name}"
        return _tyro(kinds[name], args[1:], prog=prog)
    named = (Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items())
    return _tyro(Union[*named], args, description=doc)


def parse_train(
    argv: Args,
    doc: str | None,
    tuned: Mapping[str, Any] | None = None,
    tuned_source: str = "tuned",
) -> tuple[TrainConfig, dict[str, str]]:
    """Settings of train.py and the source of each: flag > tuned > preset > variant > default.

    As in the SGAR description's commands, --use_gar without a variant means sgar, and --amp without
    a value is on.
    """
    args = _expand_bare_amp(arguments(argv))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            flags, _ = _given_flags(args, _flag_types(TrainConfig))
    except SystemExit:  # `parse`, below, reports the wrong value with the help of its flag
        flags = {}
    values, sources = _layer_settings(flags, tuned or {}, tuned_source)
    doc = f"{doc}\nVariants: {', '.join(presets.VARIANTS)}."
    return parse(TrainConfig, args, doc, values), sources


def parse_tune(argv: Args, doc: str | None) -> tuple[TuneConfig, dict[str, Any]]:
    """Settings of tune.py, and the flags of train.py that it takes too, by name.

    What no flag gives comes from the preset, by default the full one.
    """
    args = _expand_bare_amp(arguments(argv))
    train_types = {name: of for name, of in _flag_types(TrainConfig).items() if name != "variant"}
    flags, unknown = _given_flags(args, train_types | _flag_types(TuneConfig))
    if unknown:
        parse(TuneConfig, unknown, doc)  # --help, or a flag that is reported as wrong
    preset = presets.find_preset(flags.get("preset", "full"))
    config = base.build_config(TuneConfig, {**preset.tuning, **flags})
    tune_only = base.flag_defaults(TuneConfig).keys() - {"preset", "out_dir"}
    return config, {name: value for name, value in flags.items() if name not in tune_only}


def train_settings(flags: Mapping[str, Any]) -> tuple[TrainConfig, dict[str, str]]:
    """Settings of train.py from flags by name, as `parse_train` has them from arguments."""
    values, sources = _layer_settings(flags, {}, "tuned")
    return base.build_config(TrainConfig, {**values, **flags}), sources


def arguments(argv: Args) -> list[str]:
    """The arguments as a list; those of this process where they are None."""
    return list(sys.argv[1:] if argv is None else argv)


def flag_names(args: Sequence[str]) -> set[str]:
    """Names of the flags among the arguments, dashes as underscores."""
    flags = (arg.lstrip("-").partition("=")[0] for arg in args if arg.startswith("-"))
    return {flag.replace("-", "_") for flag in flags}


def _layer_settings(
    flags: Mapping[str, Any], tuned: Mapping[str, Any], tuned_source: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings of train.py below its flags, and the source of each, flags included."""
    defaults = base.flag_defaults(TrainConfig)
    variant = flags.get("variant")
    if variant not in presets.VARIANTS:
        variant = "sgar" if flags.get("use_gar") else defaults["variant"]
    layers = {f"variant {variant}": presets.VARIANTS[variant] | {"variant": variant}}
    if preset := flags.get("preset"):
        layers[f"preset {preset}"] = presets.find_preset(preset).values_of(variant)
    layers[tuned_source] = dict(tuned)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(defaults, "default")
    for source, layer in layers.items():
        if unknown := sorted(layer.keys() - defaults.keys()):
            fix = "see `python solution/train.py --help` for the names"
            raise ConfigError(source, f"no setting is called {unknown[0]!r}", fix)
        values |= layer
        sources |= dict.fromkeys(layer, source)
    sources |= dict.fromkeys(flags.keys() - {"variant"}, "flag")
    if "variant" not in flags and variant == defaults["variant"]:
        sources["variant"] = "default"
    return values, sources


def _given_flags(args: Sequence[str], types: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Flag -> value of the flags that the arguments give, and the arguments that are unknown.

    types: flag -> type. A wrong value exits with 2 and a message.
    """
    # a dictionary with optional keys: without defaults, so only the given flags are in it
    kind = TypedDict("Flags", types, total=False)  # type: ignore[misc] # computed keys
    flags, unknown = _tyro(kind, args, add_help=False, return_unknown_args=True)
    return flags, unknown


def _tyro(kind: Any, args: Sequence[str], **options: Any) -> Any:
    """What tyro makes of the arguments. Its overloads do not know computed types, hence Any."""
    return tyro.cli(kind, args=args, use_underscores=True, **options)


@functools.cache
def _flag_types(kind: type) -> dict[str, Any]:
    """Flag name -> type, groups opened."""
    hints = get_type_hints(kind, include_extras=True)
    types: dict[str, Any] = {}
    for item in fields(kind):
        default = base.field_default(item)
        is_group = is_dataclass(default) and not isinstance(default, type)
        types |= _flag_types(default.__class__) if is_group else {item.name: hints[item.name]}
    return types


def _expand_bare_amp(args: Sequence[str]) -> list[str]:
    """The arguments with `on` after an --amp that has no value."""
    words: list[str] = []
    for arg, following in zip_longest(args, args[1:], fillvalue="--"):
        words += [arg, "on"] if arg == "--amp" and following.startswith("--") else [arg]
    return words


def command(main: Callable[[Args], int]) -> Callable[..., int]:
    """Wraps a script's `main`: an error is one line on standard error and exit code 1.

    So is what the system refuses: space, permissions, memory. --debug shows the traceback instead.
    A signal that asks it to stop is one line and 128 + its number, 130 after Ctrl-C. Where nobody
    reads the output any longer it ends without a word. Log messages are shown as lines. A script
    that another one started ends with it.
    """

    @functools.wraps(main)
    def wrapped(argv: Args = None) -> int:
        stopping.end_with_calling_script()
        warnings.showwarning = _show_warning
        # Spinning threads make a training with another job next to it four times as slow, and one
        # that runs alone hardly faster.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        stopping.silence_resource_trackers()
        logs.show_every_character()
        logs.show_logs()
        with stopping.raise_on_signals() as request:
            try:
                code = main(_with_current_names(argv))
                sys.stdout.flush()  # not when Python exits, where a closed pipe is a complaint
                return code
            except BrokenPipeError:
                stopping.discard_output()
                return stopping.BROKEN_PIPE
            except (KeyboardInterrupt, Exception) as error:
                if request.number is None and not isinstance(error, KeyboardInterrupt):
                    return _report_error(error, "--debug" in arguments(argv))
                # whatever it is: a library may have put its own error in the place of `Stopped`
                return _report_stop(request.number or signal.SIGINT)

    return wrapped


def _report_error(error: Exception, debug: bool) -> int:
    """Prints an error in one line and returns the exit code; raises an error of the program."""
    described = error if isinstance(error, MotretError) else describe_system_error(error)
    if debug or described is None:
        raise error
    _write_error_line(f"error: {described}")
    return 1


def _report_stop(number: int) -> int:
    if not os.environ.get(STOPS_QUIETLY):
        stopped = (
            "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        )
        _write_error_line(
            f"{stopped}; finished work is kept, and the same command continues where it can"
        )
    return stopping.exit_code(number)


def _write_error_line(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone, or nobody listens
        sys.stderr.write(f"{line}\n")


def _with_current_names(argv: Args) -> Args:
    """The arguments with each former name of a flag replaced by its name."""
    args = arguments(argv)
    if not flag_names(args) & base.FORMER_NAMES.keys():
        return argv
    replaced = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        is_former = flag.startswith("--") and name in base.FORMER_NAMES
        replaced.append(f"--{base.FORMER_NAMES[name]}{equals}{value}" if is_former else arg)
    return replaced


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows the package's own warnings in one line; those of libraries as Python prints them."""
    if category is UserWarning and "motret" in filename:
        text = f"warning: {message}\n"
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(printable(text, keep_layout=True))
