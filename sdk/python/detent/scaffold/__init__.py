"""A project to begin with: the files of `project/` with names filled in, and detent's template for the platform.

template.yaml lies at the root of detent's repository and nowhere else: a wheel carries a copy, a checkout is read.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import machine

from detent_infra.ops.packaging.origin import requirement
from detent_state_machine.errors import InputError

_PROJECT = Path(__file__).with_name("project")
_SHIPPED = Path(__file__).with_name("platform.yaml")
_OF_CHECKOUT = Path(__file__).parents[4] / "template.yaml"
_DEFAULT_APP = "Default: examples.orders.app:app"
_TAKEN = {"tests", "build", "test", "detent_functions", "detent_infra", "detent_state_machine", "detent"}
"""Names that a project cannot have, because its imports or its folders would meet another thing of that name."""
LONGEST_STACK = 60
"""Characters: CloudFormation allows 128, but makes the names of functions (64) from the beginning of it."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the project, its package and its stack are called."""

    project: str
    package: str
    stack: str

    @property
    def app(self) -> str:
        return f"{self.package}.app:app"


def names_of(given: str) -> Names:
    """The three forms of a name such as `shop`, `my-shop` or `my_shop`. Raises `InputError` for one that has none."""
    package = re.sub(r"[-\s.]+", "_", given.strip()).lower()
    why = None
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        why = "a package's name has letters, digits and underscores, and begins with a letter"
    elif keyword.iskeyword(package):
        why = "Python has a use of its own for the word"
    elif package in _TAKEN or package in sys.stdlib_module_names:
        why = "another module has that name"
    elif len(package) > LONGEST_STACK:
        why = f"it has more than {LONGEST_STACK} characters"
    if why is not None:
        raise InputError(
            f"{given!r} is not a name for a project: {why}.", advice="Pass another, as in `--name my_shop`."
        )
    dashed = re.sub(r"_+", "-", package).strip("-")
    return Names(dashed, package, dashed)


def platform(app: str, *, for_this_machine: bool = False) -> str:
    """detent's template.yaml, to serve this app; if so wanted, with this machine's Python and processor."""
    text = (_SHIPPED if _SHIPPED.is_file() else _OF_CHECKOUT).read_text(encoding="utf-8")
    if for_this_machine:
        architecture = "arm64" if machine().lower() in ("arm64", "aarch64") else "x86_64"
        text = re.sub(r"Runtime: python[\d.]+", f"Runtime: python{sys.version_info[0]}.{sys.version_info[1]}", text)
        text = re.sub(r"Architectures: \[\w+\]", f"Architectures: [{architecture}]", text)
    made, found = re.subn(re.escape(_DEFAULT_APP), f"Default: {app}", text)
    assert found == 1, "template.yaml names its app once"
    upgrade = "After an upgrade: `detent init --template > template.yaml`."
    return f"# The platform of detent {version('detent')}. {upgrade}\n{made}"


def files(names: Names, *, for_this_machine: bool = False) -> Mapping[str, str]:
    """What a new project consists of, by path."""
    fill = {
        "@package@": names.package,
        "@name@": names.project,
        "@stack@": names.stack,
        "@version@": version("detent"),
        "@detent@": requirement(),
    }

    def filled(text: str) -> str:
        return re.sub("|".join(fill), lambda found: fill[found[0]], text)

    made = {
        path.relative_to(_PROJECT).as_posix().removesuffix(".in"): filled(path.read_text(encoding="utf-8"))
        for path in sorted(_PROJECT.rglob("*.in"))
    }
    made = {re.sub(r"^package/", f"{names.package}/", path): text for path, text in made.items()}
    return {**made, "template.yaml": platform(names.app, for_this_machine=for_this_machine)}
