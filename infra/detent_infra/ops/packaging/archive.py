"""A folder as the zip that Lambda takes, and a template that names such zips: the same bytes for the same folder."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from detent_state_machine.errors import ConfigurationError

from detent_infra.ops.packaging.size import files_of
from detent_infra.ops.packaging.target import read_template

_LONG_AGO = (2000, 1, 1, 0, 0, 0)
_LOCAL = frozenset(
    {"CodeUri", "ContentUri", "DefinitionUri", "ImageUri", "Location", "TemplateURL", "SchemaUri", "BodyS3Location"}
)
"""What may name something on this machine. Only the first is taken care of."""
_CODE = re.compile(
    r"""^(?P<key>[ \t]*CodeUri:[ \t]*)(?P<quote>['"]?)(?P<value>[^'"\s#{]+)(?P=quote)(?=[ \t]*(#|$))""", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Archive:
    """`digest` is of its content."""

    file: Path
    digest: str
    size: int


def archive(folder: Path, to: Path) -> Archive:
    """Zips the folder into the file. Everything is readable by all, as Lambda needs it."""
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}.", advice="`detent package` makes build/lambda.")
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as out:
        for path in files_of(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _LONG_AGO)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            out.writestr(entry, path.read_bytes())
    content = to.read_bytes()
    return Archive(to, hashlib.sha256(content).hexdigest(), len(content))


def code_folders(template: Path) -> list[str]:
    """The local folders that the template's functions name, as written there.

    Raises `ConfigurationError` for a local artefact of another kind, which only the SAM CLI knows how to package.
    """
    folders: dict[str, None] = {}
    for key, value in _named(read_template(template)):
        if "://" in value or (key in ("Location", "ImageUri") and ":" in value):
            continue
        if key != "CodeUri":
            raise ConfigurationError(
                f"{template.name} has the local {key} {value!r}, and `detent deploy` packages functions only.",
                advice="Deploy it with `sam build && sam deploy`.",
            )
        folders[value] = None
    return list(folders)


def with_code(template: Path, places: Mapping[str, str]) -> str:
    """The template's text, with `s3://…` in place of each local folder. All else stays as it is, comments too."""
    text = template.read_text(encoding="utf-8")
    made, count = _CODE.subn(lambda found: f"{found['key']}{places.get(found['value'], found['value'])}", text)
    written = sum(1 for key, value in _named(read_template(template)) if key == "CodeUri" and value in places)
    if count < written:
        raise ConfigurationError(
            f"{template.name} has a CodeUri in braces, or with spaces.",
            advice="Write it on a line of its own: `CodeUri: build/lambda/`.",
        )
    return made


def _named(part: object) -> Iterator[tuple[str, str]]:
    """What the template names that may be local, wherever it stands."""
    if isinstance(part, Mapping):
        for key, value in part.items():  # pyright: ignore[reportUnknownVariableType]
            if key in _LOCAL and isinstance(value, str):
                yield str(key), value  # pyright: ignore[reportUnknownArgumentType]
            else:
                yield from _named(value)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(part, list):
        for value in part:  # pyright: ignore[reportUnknownVariableType]
            yield from _named(value)  # pyright: ignore[reportUnknownArgumentType]
