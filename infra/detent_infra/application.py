"""An application by its name, `package.module:attribute`: how commands, functions and packaging read it and load it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

from detent_state_machine.errors import ConfigurationError

from detent_infra.executor import Application
from detent_infra.import_errors import what, where

FORM = "Write it as module:attribute, as in `shop.workflows:app`."

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_NAME = re.compile(f"({_DOTTED}):({_DOTTED})")


@dataclass(frozen=True, slots=True)
class LoadAdvice:
    """What to do in this place about a module that is missing, a dependency that is missing, and a failure."""

    module: str
    dependency: str
    failed: Callable[[str], str]
    """Of the module's name."""


def split_name(name: str, said: str) -> tuple[str, str]:
    """Module and attribute. Raises `ConfigurationError`, which begins with `said`, if the name is not of this form."""
    found = _NAME.fullmatch(name)
    if found is None or found[1].endswith(".py"):
        raise ConfigurationError(f"{said} is not a module and attribute.", advice=FORM)
    return found[1], found[2]


def load_application(
    name: str,
    said: str,
    *,
    own: Sequence[Path],
    advice: LoadAdvice,
    import_module: Callable[[str], ModuleType] = importlib.import_module,
) -> Application:
    """The application of this name. `said` begins messages about it; `own` are the folders of the author's code.

    Raises `ConfigurationError` if the name leads nowhere, or to something else, and for whatever the module raises
    while it is imported, with that as the cause. `KeyboardInterrupt` passes if `import_module` says so with
    `Interrupted`.
    """
    module_name, attribute = split_name(name, said)
    try:
        module = import_module(module_name)
    except Interrupted:
        raise KeyboardInterrupt from None
    except BaseException as error:
        # `sys.exit`, too: it would end a function's environment, and the next one, in its INIT.
        raise _failed(error, module_name, said, own, advice) from error
    found: object = module
    try:
        for part in attribute.split("."):
            found = getattr(found, part, None)
    except Exception as error:
        raise ConfigurationError(f"{said} cannot be read: {what(error)}", advice=FORM) from error
    if found is None:
        apps = [each for each, value in vars(module).items() if _is_application(value)]
        has = f"It has {', '.join(map(repr, apps))}." if apps else FORM
        raise ConfigurationError(f"{said}: module {module_name!r} has no {attribute!r}.", advice=has)
    if not _is_application(found):
        raise ConfigurationError(
            f"{said} is a {type(found).__name__}, not an App.",
            advice="Name the App itself, not a workflow or a function that makes one.",
        )
    return cast("Application", found)


class Interrupted(BaseException):
    """Ctrl-C while the module was imported: not an error of the module, which may raise `KeyboardInterrupt` itself."""


def _failed(
    error: BaseException, module: str, said: str, own: Sequence[Path], advice: LoadAdvice
) -> ConfigurationError:
    at = where(error, own)
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if f"{module}.".startswith(f"{error.name}."):
            return ConfigurationError(f"{said}: there is no module {error.name!r}.", advice=advice.module)
        return ConfigurationError(f"{said} imports {error.name!r}, which is not there{at}.", advice=advice.dependency)
    return ConfigurationError(f"{said} failed while it was imported{at}: {what(error)}", advice=advice.failed(module))


def _is_application(found: object) -> bool:
    executor: object = getattr(found, "executor", None)
    return callable(getattr(executor, "execute", None)) and callable(getattr(executor, "definitions", None))
