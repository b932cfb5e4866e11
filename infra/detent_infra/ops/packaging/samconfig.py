"""What samconfig.toml says about a deploy, so that `detent deploy` and `sam deploy` are told once."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from detent_state_machine.errors import ConfigurationError

from detent_infra.ops.packaging.reading import mapping_at, read

NAME = "samconfig.toml"


@dataclass(frozen=True, slots=True)
class SamConfig:
    """What is read of it: the default environment. None where it says nothing."""

    stack: str | None = None
    region: str | None = None
    bucket: str | None = None
    capabilities: tuple[str, ...] = ("CAPABILITY_IAM",)
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


def read_samconfig(root: Path) -> SamConfig:
    """Raises `ConfigurationError` for a file that cannot be read; what it lacks has defaults."""
    default = mapping_at(read(root / NAME, tomllib.loads), "default")
    given = {**mapping_at(default, "global", "parameters"), **mapping_at(default, "deploy", "parameters")}
    return SamConfig(
        stack=_text(given, "stack_name"),
        region=_text(given, "region"),
        bucket=_text(given, "s3_bucket"),
        capabilities=tuple(_words(given.get("capabilities", "CAPABILITY_IAM"))),
        parameters=parameters_of(_words(given.get("parameter_overrides", ""))),
    )


def parameters_of(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` each. Raises `ConfigurationError`."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{pair!r} is not a parameter.", advice="Write it as `MaximumConcurrency=20`.")
        found[name] = value
    return found


def _text(given: Mapping[str, object], name: str) -> str | None:
    found = given.get(name)
    return found if isinstance(found, str) and found else None


def _words(given: object) -> list[str]:
    """A list of texts, or one text as a shell would split it."""
    match given:
        case str():
            return shlex.split(given)
        case list():
            return [str(each) for each in cast("list[object]", given)]
        case _:
            raise ConfigurationError(f"{given!r} in {NAME} is neither text nor a list of texts.", advice="Fix it.")
