"""Which workers are alive: each holds a lock that the operating system frees when its process dies.

The locks are bytes of one file beside the database. A worker locks a byte at a place drawn at random. Place and file
make its name, which stands in its owner tokens and on the messages that it holds. No process id is in it, so none can
be mistaken for another.

    lock held          alive, or stopped (SIGSTOP): the lease decides
    lock free          dead, or its backend is closed: it can write nothing more
    cannot be told     another machine, file or boot, or a file system without such locks: the lease decides

A lock may be free late, when a child that was forked past Python still has it. It is never free early: the kernel frees
it after the last thread of the process has ended. It belongs to an open file (F_OFD_SETLK, Linux), not to a process, so
that no other open and close of the file in the process gives it up, and workers in one process tell each other apart.
"""

from __future__ import annotations

import os
import secrets
import struct
import weakref
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from detent_infra import forks
from detent_infra.ids import base32

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Changes with each start of the kernel, and is the same in all its containers."""
_FLOCK = "hhqqi4x"
"""`struct flock` of 64-bit Linux: type, whence, start, length, process."""
FILE_LETTERS, NAME_LETTERS, TOKEN_LETTERS = 8, 20, 32
"""Of a token the first letters say where the lock is, the next which byte it is, the rest is new each time."""
_PLACE_BITS, _REST_BITS = 60, 60


class Liveness(forks.Forkable):
    """One backend's lock, taken when a worker first needs it, and a look at those of others."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-alive")
        self._like = database
        self._open: _OpenFile | None = None
        self._name: str | None = None
        self._asked = False
        forks.follow_forks(self)

    @property
    def name(self) -> str | None:
        """Whose lock is held now; None where there are no such locks."""
        if not self._asked:
            self._asked = True
            with suppress(OSError):
                self._name = self._hold()
        return self._name

    def new_token(self, otherwise: str) -> str:
        """A new owner token that names the lock; the other one where there is none."""
        name = self.name
        return otherwise if name is None else name + base32(secrets.randbits(_REST_BITS), TOKEN_LETTERS - NAME_LETTERS)

    def is_dead(self, token: str) -> bool:
        """Whether the lock that an owner token, or a name, tells of is known to be free."""
        name = self.name
        if name is None or self._open is None or token[:FILE_LETTERS] != name[:FILE_LETTERS]:
            return False
        if len(token) not in (NAME_LETTERS, TOKEN_LETTERS) or token[:NAME_LETTERS] == name:
            return False
        with suppress(OSError, ValueError):
            return self._open.is_free(int(token[FILE_LETTERS:NAME_LETTERS], 32))
        return False

    def close(self) -> None:
        """Gives the lock up: nothing is written any more by who had it."""
        if self._open is not None:
            self._open.close()
        self._asked, self._open, self._name = True, None, None

    def in_child(self) -> None:
        # The parent's lock stays with the parent: a copy that is kept open would hold it when the parent is dead.
        if self._open is not None:
            self._open.close()
            self._asked, self._open, self._name = False, None, None

    def _hold(self) -> str | None:
        if fcntl is None or not hasattr(fcntl, "F_OFD_SETLK") or struct.calcsize("l") != struct.calcsize("q"):
            return None
        boot = _BOOT.read_bytes()
        opened = _OpenFile(self._path, self._like.stat().st_mode & 0o666)
        place = secrets.randbits(_PLACE_BITS)
        try:
            opened.lock(place)
        except OSError:
            opened.close()
            raise
        self._open = opened
        where = blake2b(boot + opened.identity, digest_size=5).digest()
        return base32(int.from_bytes(where, "big"), FILE_LETTERS) + base32(place, NAME_LETTERS - FILE_LETTERS)


class _OpenFile:
    """The file of locks, open. It is closed with the object, if not before."""

    def __init__(self, path: Path, mode: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        self.close = weakref.finalize(self, os.close, self._file)
        self.close.atexit = False  # until the process has ended, its threads may write
        stat = os.fstat(self._file)
        self.identity = f"{stat.st_dev} {stat.st_ino}".encode()
        """The same for who looks at the same file of the same file system, and for nobody else."""

    def lock(self, place: int) -> None:
        """Raises `OSError` if the file system has no such locks."""
        assert fcntl is not None, "without it no file of locks is opened"
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, place))

    def is_free(self, place: int) -> bool:
        """Raises `OSError` if it cannot be told."""
        assert fcntl is not None, "without it no file of locks is opened"
        answer = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, place))
        return bool(struct.unpack(_FLOCK, answer)[0] == fcntl.F_UNLCK)


def _flock(kind: int, place: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0)
