"""Classes that a flag names as `module:Class`: how a tower of one file is plugged in."""

import difflib
import importlib
from types import ModuleType
from typing import TypeVar

from torch import nn

from motret.errors import ConfigError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_class(flag: str, path: str, base: type[ModuleT], docs: str) -> type[ModuleT]:
    """The class that `module:Class` names.

    flag: the flag that names it, for messages; base: what it must be a subclass of; docs: the page
    with an example. ConfigError where the path has another form, or there is no such class.
    """
    module_name, _, class_name = path.partition(":")
    if not (module_name and class_name):
        fix = f"write module:Class; {docs} has an example"
        raise ConfigError(flag, f"{path!r} is not of the form module:Class", fix)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        fix = f"give a file of solution/ without its .py; {docs} has an example"
        raise ConfigError(flag, f"{path!r}: {error}", fix) from error
    loaded = getattr(module, class_name, None)
    if isinstance(loaded, type) and issubclass(loaded, base):
        return loaded
    problem = f"no {class_name} in {module.__file__}"
    if loaded is not None:
        problem = f"{class_name} is no {_name_of(base)}"
    towers = _classes_of(module, base)
    close = difflib.get_close_matches(class_name, towers, n=1) or towers
    fix = (
        f"its towers: {', '.join(close)}" if close else f"define the class there; {docs} shows how"
    )
    raise ConfigError(flag, f"{path!r}: {problem}", fix)


def _classes_of(module: ModuleType, base: type[nn.Module]) -> list[str]:
    """Names of the subclasses of `base` that a module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    ]


def _name_of(base: type[nn.Module]) -> str:
    return "nn.Module" if base is nn.Module else base.__name__
