"""The folder that Lambda unpacks: the same bytes each time it is made from the same project and lock.

It is made beside its place and then renamed, so that there is never half a folder. uv installs the dependencies for
the target; detent is the one that runs this, whether from a wheel or a checkout; the application is copied.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from detent_state_machine.errors import ConfigurationError, InputError

from detent_infra.ops.packaging.imports import must_be_included, must_not_hide
from detent_infra.ops.packaging.lock import digest, locked, read_lock
from detent_infra.ops.packaging.project import OWN_PACKAGES, Project, modules_of
from detent_infra.ops.packaging.size import LIMIT, MB, Size, files_of, weigh
from detent_infra.ops.packaging.target import Target
from detent_infra.ops.packaging.uv import uv

MANIFEST = "detent-package.json"
"""Says in a folder what it is; no other folder is ever replaced."""

_NO_FUNCTION_NEEDS = {"detent": frozenset({"cli", "scaffold"}), "detent_infra": frozenset({"ops"})}
_OF_THIS_INSTALLATION = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})
"""What installers leave in a package's metadata about where and how they worked."""
_UNPACKED = "/var/task"
"""Where Lambda unpacks the folder: the path that compiled code shows in traces."""
_LONG_AGO = 946_684_800
"""2000-01-01, the time of every file: a zip has no time before 1980, and by default it has the current one."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that was made. `bytecode` tells whether Lambda finds its modules compiled."""

    path: Path
    target: Target
    app: str
    bytecode: bool
    size: Size


def build(
    project: Project, app: str, target: Target, out: Path, *, bytecode: bool | None = None, compiler: str | None = None
) -> Folder:
    """Makes the folder for an app (`module:attribute`) at `out`, in place of one that was made there before.

    `bytecode`: compile the modules; None, if a Python of the target's version is found. `compiler` is its path.
    Raises `ConfigurationError` and `InputError`, and then leaves everything as it was.
    """
    try:
        return _build(project, app, target, out.absolute(), bytecode=bytecode, compiler=compiler)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error}.", advice="Choose another --out.") from error


def _build(
    project: Project, app: str, target: Target, out: Path, *, bytecode: bool | None, compiler: str | None
) -> Folder:
    _must_be_replaceable(out)
    lock = read_lock(project, target)
    modules = modules_of(project, app)
    must_not_hide(project, modules, locked(lock))
    must_be_included(project, modules)
    _must_be_apart(out, modules)
    python = None if bytecode is False else _compiler(target, compiler)
    if bytecode and python is None:
        raise ConfigurationError(
            f"Compiling needs Python {target.python}, which is not found.",
            advice="Name it with --compile-with, or pass --no-bytecode: Lambda then compiles at each cold start.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _install(project, lock, target, made)
        _add_detent(made)
        _add_application(modules, made)
        _write_manifest(made, app, target, lock, bytecode=python is not None)
        if python is not None:
            _compile(made, python, modules)
        _make_plain(made)
        size = weigh(made)
        if size.unzipped > LIMIT:
            largest = ", ".join(f"{part.name} {part.unzipped / MB:.0f} MB" for part in size.parts[:3])
            raise InputError(
                f"The folder has {size.unzipped:,} bytes, and Lambda takes {LIMIT:,}. The largest: {largest}."
            )
        _put_in_place(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return Folder(out, target, app, python is not None, size)


# ---- what goes in ---------------------------------------------------------------------------------------------


def _install(project: Project, lock: Path, target: Target, made: Path) -> None:
    arguments = ["pip", "install", "--target", str(made), "--requirements", str(lock), "--require-hashes", "--no-deps"]
    arguments += ["--python-platform", target.platform, "--python-version", target.python, "--no-build"]
    # Copies, because links would lead into uv's cache, whose files must keep their times and modes.
    arguments += ["--python", sys.executable, "--link-mode", "copy", "--no-compile-bytecode"]
    uv(arguments, cwd=project.root, doing=f"Installing the dependencies for {target}")
    shutil.rmtree(made / "bin", ignore_errors=True)  # commands, with this machine's Python in their first line
    for file in (made / ".lock", *(path for path in made.glob("*.dist-info/*") if path.name in _OF_THIS_INSTALLATION)):
        file.unlink(missing_ok=True)


def _add_detent(made: Path) -> None:
    for name in OWN_PACKAGES:
        spec = find_spec(name)
        places = None if spec is None else spec.submodule_search_locations
        if not places:
            raise ConfigurationError(f"detent's own package {name!r} is not installed.", advice="Install detent again.")
        _copy(Path(places[0]), made / name, without=_NO_FUNCTION_NEEDS.get(name, frozenset()))
    about = made / f"detent-{version('detent')}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(distribution("detent").read_text("METADATA") or "", encoding="utf-8")


def _add_application(modules: Mapping[str, Path], made: Path) -> None:
    taken = {path.name.partition(".")[0] for path in made.iterdir()}  # a module and a package of one name, too
    for name, source in modules.items():
        if name.partition(".")[0] in taken:
            raise InputError(
                f"The application's {name!r} has the name of one of its dependencies.", advice="Rename it."
            )
        _copy(source, made / name)


def _copy(source: Path, to: Path, *, without: frozenset[str] = frozenset()) -> None:
    """A module or package, without what Python and editors leave in it."""
    if source.is_file():
        shutil.copy(source, to)
        return

    def unwanted(folder: str, names: list[str]) -> list[str]:
        apart = without if Path(folder) == source else frozenset[str]()
        return [n for n in names if n == "__pycache__" or n.startswith(".") or n.endswith(".pyc") or n in apart]

    try:
        shutil.copytree(source, to, ignore=unwanted)
    except (OSError, shutil.Error) as error:
        raise InputError(f"{source} cannot be copied: {error}.") from error


def _write_manifest(made: Path, app: str, target: Target, lock: Path, *, bytecode: bool) -> None:
    told = {
        "detent": version("detent"),
        "app": app,
        "python": target.python,
        "architecture": target.architecture,
        "lock": f"sha256:{digest(lock)}",
        "bytecode": bytecode,
    }
    (made / MANIFEST).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


# ---- compiled, plain, in place --------------------------------------------------------------------------------


def _compiler(target: Target, given: str | None) -> str | None:
    """A Python of the target's version, since no other compiles for it. Raises `InputError` if the given is none."""
    if given is not None:
        if not _is_python(given, target):
            raise InputError(
                f"{given} is not Python {target.python}.", advice="Name one of the version to package for."
            )
        return given
    candidates = (sys.executable, shutil.which(f"python{target.python}"))
    return next((each for each in candidates if each is not None and _is_python(each, target)), None)


def _is_python(program: str, target: Target) -> bool:
    ask = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter that was named or found
            [program, "-I", "-c", ask], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.split() == ["cpython", target.python]


def _compile(made: Path, python: str, modules: Mapping[str, Path]) -> None:
    """Compiled code that holds whatever the times of the sources are, which no way into Lambda preserves."""
    command = [python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    done = subprocess.run(  # noqa: S603 - the interpreter above
        [*command, "-s", str(made), "-p", _UNPACKED, str(made)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    # A dependency may hold a file for another Python; the application's own must all compile.
    for source in _sources(made, modules):
        if not list(source.parent.glob(f"__pycache__/{source.stem}.*.pyc")):
            said = " ".join(done.stdout.replace(f"{made}/", "").split())
            raise InputError(f"{source.relative_to(made)} cannot be compiled: {said[:300]}")


def _sources(made: Path, modules: Mapping[str, Path]) -> Iterator[Path]:
    for name in modules:
        place = made / name
        yield from place.rglob("*.py") if place.is_dir() else (place,)


def _make_plain(made: Path) -> None:
    """Nothing is left of who made the folder, when, and under which umask."""
    for path in files_of(made):
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    for path in sorted((path for path in made.rglob("*") if path.is_dir()), reverse=True):
        path.chmod(0o755)
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    made.chmod(0o755)


def _must_be_replaceable(out: Path) -> None:
    try:
        taken = out.is_symlink() or out.is_file() or (any(out.iterdir()) and not (out / MANIFEST).is_file())
    except FileNotFoundError:
        return
    if taken:
        raise InputError(
            f"{out} holds something that `detent package` did not make, so it is not replaced.",
            advice="Choose another --out, or delete it yourself.",
        )


def _must_be_apart(out: Path, modules: Mapping[str, Path]) -> None:
    for name, source in modules.items():
        if out.resolve().is_relative_to(source.resolve()):
            raise InputError(
                f"{out} is inside of {name!r}, which goes into it: the next folder would hold this one.",
                advice="Choose an --out beside the application.",
            )


def _put_in_place(made: Path, out: Path) -> None:
    old = Path(f"{made}.old")
    if out.exists():
        out.rename(old)
    try:
        made.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
