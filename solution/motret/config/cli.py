"""The command line: flags into settings, faults into one line, and where each value came from."""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import tyro

from motret.config import base, presets, scripts, training
from motret.errors import ConfigError, MotretError
from motret.utils import logs

ConfigT = TypeVar("ConfigT")
STOPS_QUIETLY = "MOTRET_STOPS_QUIETLY"
"""Environment variable of scripts whose caller says that they were stopped."""


def parse(kind: type[ConfigT], argv: Sequence[str] | None, doc: str | None, defaults: dict[str, Any] | None = None) -> ConfigT:
    """Settings of this kind from flags (snake_case, dashes accepted) over `defaults`. `--help` and wrong flags exit as tyro does (0, 2)."""
    args = list(sys.argv[1:] if argv is None else argv)
    over = {"default": base.build_config(kind, defaults)} if defaults else {}
    return tyro.cli(kind, args=args, description=doc, use_underscores=True, **over)


def parse_one_of(kinds: dict[str, type], argv: Sequence[str] | None, doc: str | None) -> Any:
    """Settings of the kind that the first argument names; dashes and underscores in the name are the same."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args and (name := args[0].replace("-", "_")) in kinds:
        return tyro.cli(kinds[name], args=args[1:], prog=f"{Path(sys.argv[0]).name} {name}", use_underscores=True)
    choice = Union[*(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items())]
    return tyro.cli(choice, args=args, description=doc, use_underscores=True)


def parse_train(
    argv: Sequence[str] | None, doc: str | None, tuned: dict[str, Any] | None = None, tuned_source: str = "tuned"
) -> tuple[training.TrainConfig, dict[str, str]]:
    """Training settings and the source of each: flag > tuned > preset > variant > default.

    Without a variant --use_gar means sgar, and --amp without a value is on, as in the SGAR description's own commands.
    """
    args = _expand_bare_amp(sys.argv[1:] if argv is None else argv)
    known = base.flag_defaults(training.TrainConfig)
    plain = "sgar" if any(arg.replace("-", "_") == "__use_gar" for arg in args) else known["variant"]
    variant = next((arg for arg in positional_words(args, known) if arg in presets.VARIANTS), plain)
    layers = {f"variant {variant}": presets.VARIANTS[variant] | {"variant": variant}}
    if preset := _flag_value("preset", args):
        if preset not in presets.PRESETS:
            raise ConfigError("--preset", f"no preset is called {preset!r}", f"choose from {', '.join(presets.PRESETS)}")
        layers[f"preset {preset}"] = presets.PRESETS[preset].values_of(variant)
    layers[tuned_source] = tuned or {}
    values: dict[str, Any] = {}
    sources = dict.fromkeys(known, "default")
    for source, layer in layers.items():
        if unknown := sorted(set(layer) - set(known)):
            raise ConfigError(source, f"no setting is called {unknown[0]!r}", "see `python solution/train.py --help` for the names")
        values.update(layer)
        sources.update(dict.fromkeys(layer, source))
    if variant == known["variant"] and variant not in positional_words(args, known):
        sources["variant"] = "default"
    config = parse(training.TrainConfig, args, f"{doc}\nVariants: {', '.join(presets.VARIANTS)}.", values)
    sources.update(dict.fromkeys(given_flags(args) & set(known), "flag"))
    return config, sources


def positional_words(args: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The words of an argument list that are no flag and no flag's value. known: flag -> its default; one that is a bool has no value."""
    values = {place + 1 for place, arg in enumerate(args) if arg.startswith("--") and not _has_no_value(arg, known)}
    return [arg for place, arg in enumerate(args) if not arg.startswith("-") and place not in values]


def _has_no_value(flag: str, known: Mapping[str, Any]) -> bool:
    """Whether the next word is none of the flag's."""
    return "=" in flag or isinstance(known.get(flag[2:].replace("-", "_").removeprefix("no_")), bool)


def _expand_bare_amp(args: Sequence[str]) -> list[str]:
    """The arguments with `on` after an --amp that stands alone."""
    words: list[str] = []
    for arg, following in zip_longest(args, args[1:], fillvalue="--"):
        words += [arg, "on"] if arg == "--amp" and following.startswith("--") else [arg]
    return words


def parse_tune(argv: Sequence[str] | None, doc: str | None) -> tuple[scripts.TuneConfig, list[str]]:
    """Settings of tune.py, and the other flags, which are train.py's. What is not given comes from the preset."""
    args = ["--help" if arg == "-h" else arg for arg in (sys.argv[1:] if argv is None else argv)]
    known = base.flag_defaults(scripts.TuneConfig) | {"help": False}
    every = base.flag_defaults(training.TrainConfig) | known
    own, rest = positional_words(args, every), []
    first = next((place for place, arg in enumerate(args) if arg.startswith("-")), len(args))
    for name, words in flag_groups(args[first:]):
        words = words[: 1 if _has_no_value(words[0], every) else 2]
        if name in known:
            own += words
        if name not in known or name in ("preset", "out_dir"):
            rest += words
    preset = presets.PRESETS.get(_flag_value("preset", args) or "full")
    return parse(scripts.TuneConfig, own, doc, dict(preset.tuning) if preset else None), rest


def flag_groups(args: Sequence[str], script: str = "command line") -> list[tuple[str, list[str]]]:
    """An argument list as (flag name, its words): each flag with the values that follow it. ConfigError where it starts otherwise."""
    groups: list[tuple[str, list[str]]] = []
    for arg in args:
        if arg.startswith("--"):
            groups.append((arg[2:].split("=")[0].replace("-", "_"), [arg]))
        elif groups:
            groups[-1][1].append(arg)
        else:
            raise ConfigError(script, f"{arg!r} is no flag", "flags start with --; --help names them")
    return groups


def given_flags(args: Sequence[str]) -> set[str]:
    """Names of the flags that stand in an argument list; `--no_x` counts as `x`, dashes as underscores."""
    written = {arg[2:].split("=")[0].replace("-", "_") for arg in args if arg.startswith("--")}
    return written | {name.removeprefix("no_") for name in written if name.startswith("no_")}


def _flag_value(name: str, args: Sequence[str]) -> str | None:
    value = None  # of the last of them, as for every flag
    for place, arg in enumerate(args):
        if arg == f"--{name}" and place + 1 < len(args):
            value = args[place + 1]
        elif arg.startswith(f"--{name}="):
            value = arg.split("=", 1)[1]
    return value


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Makes a script's `main` say a fault in one line and return 1 (2 for wrong flags), with the traceback only under --debug."""

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        warnings.showwarning = _show_warning
        # Threads that wait in a spin make a training beside another job four times as slow, and one alone hardly faster.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        logs.show_logs()
        try:
            return main(_with_current_names(argv))
        except MotretError as fault:
            if "--debug" in (sys.argv if argv is None else argv):
                raise
            print(f"error: {fault}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            if not os.environ.get(STOPS_QUIETLY):
                print("stopped; what was finished is kept (the same command goes on where it can)", file=sys.stderr)
            return 130

    return guarded


def _with_current_names(argv: Sequence[str] | None) -> Sequence[str] | None:
    """The arguments with flags that had another name before under the name they have now."""
    args = sys.argv[1:] if argv is None else argv
    former = {f"--{name}": f"--{now}" for name, now in base.FORMER_NAMES.items()}
    if not any(arg.split("=")[0].replace("-", "_").replace("__", "--", 1) in former for arg in args):
        return argv
    flags = [arg.partition("=") for arg in args]
    return [former.get(flag.replace("-", "_").replace("__", "--", 1), flag) + sign + value for flag, sign, value in flags]


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
    """Our own warnings in one line; those of libraries as Python prints them."""
    if category is UserWarning and "motret" in filename:
        print(f"warning: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
