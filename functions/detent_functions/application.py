"""Finds the application that `DETENT_APP` names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import cast

from detent_infra.executor import Application
from detent_infra.import_errors import what, where
from detent_state_machine.errors import ConfigurationError

_FORM = "Write it as `package.module:attribute`, as in `examples.orders.app:app`."


def load_application(name: str) -> Application:
    """The application under a name like `shop.workflows:app`.

    Raises `ConfigurationError` if the name leads nowhere, or to something else. What the application's own module
    raises while it is imported is passed on as the cause.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or name.count(":") > 1:
        raise ConfigurationError(f"DETENT_APP is {name!r}, which names no application.", advice=_FORM)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise ConfigurationError(
                f"DETENT_APP is {name!r}, and there is no module {error.name!r}.",
                advice="Package it with the function, beside `detent_functions`.",
            ) from error
        raise ConfigurationError(
            f"{module_name!r} (from DETENT_APP) imports {error.name!r}, which is not there{where(error, _own())}.",
            advice="Package that dependency with the function.",
        ) from error
    except BaseException as error:  # `sys.exit`, too: it would end the environment, and the next one, in its INIT
        raise ConfigurationError(
            f"{module_name!r} (from DETENT_APP) failed while it was imported{where(error, _own())}: {what(error)}",
            advice="Importing it on your own machine shows the whole trace.",
        ) from error
    found: object = getattr(module, attribute, None)
    if found is None:
        raise ConfigurationError(f"DETENT_APP is {name!r}, and {module_name!r} has no {attribute!r}.", advice=_FORM)
    executor: object = getattr(found, "executor", None)
    if not callable(getattr(executor, "execute", None)) or not callable(getattr(executor, "definitions", None)):
        raise ConfigurationError(
            f"DETENT_APP is {name!r}, which is a {type(found).__name__}, not an application.",
            advice="Name the `App` itself, not a workflow or a function that makes one.",
        )
    return cast("Application", found)


def _own() -> list[Path]:
    """Where the application's code lies: in a function, where it is unpacked."""
    return [Path(folder) for folder in dict.fromkeys((*sys.path, str(Path.cwd()))) if folder]
