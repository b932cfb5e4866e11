"""What a folder is made for: the Python version and the processor that the template gives its functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from detent_state_machine.errors import ConfigurationError

from detent_infra.ops.packaging.origin import installation
from detent_infra.ops.packaging.reading import mapping_at, read

TEMPLATE = "template.yaml"

_CPU = {"arm64": "aarch64", "x86_64": "x86_64"}
_AMAZON_LINUX_2023 = (3, 12)
"""The first Python whose Lambda runtime is built on it, with glibc 2.34; those before have 2.26.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html"""
OLDEST = (3, 11)
"""The first Python that detent runs on."""


@dataclass(frozen=True, slots=True)
class Target:
    """`python` is a minor version, as in `3.13`; `architecture` is `arm64` or `x86_64`, in Lambda's words."""

    python: str
    architecture: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.\d{1,2}", self.python) or self.version < OLDEST:
            raise ConfigurationError(
                f"There is no packaging for Python {self.python!r}.", advice="Use 3.11 or newer, as in `3.13`."
            )
        if self.architecture not in _CPU:
            raise ConfigurationError(
                f"Lambda has no architecture {self.architecture!r}.", advice="Use arm64 or x86_64."
            )

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(map(int, self.python.split(".")))

    @property
    def platform(self) -> str:
        """What uv calls it: the wheels that Lambda's system can load."""
        glibc = "2_34" if self.version >= _AMAZON_LINUX_2023 else "2_17"
        return f"{_CPU[self.architecture]}-manylinux_{glibc}"

    def __str__(self) -> str:
        return f"Python {self.python} on {self.architecture}"


def read_target(template: Path, *, python: str | None = None, architecture: str | None = None) -> Target:
    """What the template's Python functions run on, unless given. Reads no template if both are given.

    Raises `ConfigurationError` if the template is missing or unreadable, or if its functions differ.
    """
    if python is None or architecture is None:
        runtime, processor = _one(template, set(_functions(template)))
        python = python or runtime
        architecture = architecture or processor
    return Target(python, architecture)


def _one(template: Path, found: set[tuple[str, str]]) -> tuple[str, str]:
    if len(found) == 1:
        return found.pop()
    if not found:
        said = f"{template.name} has no function with a Python runtime."
    else:
        said = f"{template.name} has functions for {' and '.join(f'Python {p} on {a}' for p, a in sorted(found))}."
    raise ConfigurationError(said, advice="Say which is meant: `--python-version 3.13 --architecture arm64`.")


def _functions(template: Path) -> Iterator[tuple[str, str]]:
    """Python version and architecture of each function with a Python runtime."""
    body = read_template(template)
    shared = mapping_at(body, "Globals", "Function")
    for resource in mapping_at(body, "Resources").values():
        if mapping_at(resource).get("Type") != "AWS::Serverless::Function":
            continue
        properties = {**shared, **mapping_at(resource, "Properties")}
        runtime = properties.get("Runtime")
        if isinstance(runtime, str) and runtime.startswith("python"):
            yield runtime.removeprefix("python"), _architecture(template, properties.get("Architectures"))


def _architecture(template: Path, given: object) -> str:
    match given:
        case None:
            return "x86_64"  # Lambda's own default
        case [str(name)]:
            return name
        case _:
            raise ConfigurationError(
                f"`Architectures` in {template.name} is not written out.",
                advice="Write `Architectures: [arm64]`: a build cannot see what a deploy's parameters will say.",
            )


def read_template(template: Path) -> Mapping[str, object]:
    """The template as data, without what its `!Ref` and the like refer to. Raises `ConfigurationError`."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Reading template.yaml needs PyYAML, which is not installed.", advice=installation()
        ) from error

    class Loader(yaml.SafeLoader):
        """Knows CloudFormation's `!Ref` and the like, and keeps nothing of them."""

    Loader.add_multi_constructor("!", _tagged)  # pyright: ignore[reportUnknownMemberType]

    def parse(text: str) -> Mapping[str, object]:
        try:
            return mapping_at(yaml.load(text, Loader))  # noqa: S506 - it is a SafeLoader
        except yaml.YAMLError as error:
            raise ValueError(error) from error

    body = read(template, parse)
    if body is None:
        raise ConfigurationError(
            f"There is no {template.name} in {template.absolute().parent}, which would say what to package for.",
            advice="Run this where it is, or pass `--python-version 3.13 --architecture arm64`.",
        )
    return body


def _tagged(_loader: object, suffix: str, _node: object) -> dict[str, None]:
    return {f"!{suffix}": None}
