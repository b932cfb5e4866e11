"""The command line. `commands` has a table of what there is, and a module for each command, loaded when it runs.

Exit codes: 0 ok; 1 the run failed or was cancelled; 2 usage, input, names or setup are wrong, or the backend did not
answer; 130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import typer
from detent_state_machine.errors import DetentError, RunError

from detent.cli.output import indented, one_line
from detent.cli.streams import OutputFailed, ReaderGone, command_streams, discard, end_process

__all__ = ["main"]

RUN_FAILED = 1
WRONG = 2
INTERRUPTED = 130
READER_GONE = 141


@runtime_checkable
class _UsageError(Protocol):
    """A wrong command line. The class lives in click, or, in newer versions of typer, inside typer."""

    exit_code: int

    def format_message(self) -> str: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (by default this process's) and returns its exit code."""
    with command_streams():
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    if arguments is None:
        end_process(code)
    return code


def _run(given: Sequence[str]) -> int:
    from detent.cli.commands import command_line

    try:
        program = typer.main.get_command(command_line(_commands_in(given)))
        result: object = program.main(args=list(given), prog_name="detent", standalone_mode=False)
        _flush()
    except ReaderGone:
        discard(sys.stdout)
        return READER_GONE
    except OutputFailed as error:
        discard(sys.stdout)
        return _say(f"Standard output cannot be written: {error.strerror}.", WRONG)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except RunError as error:
        return _say(indented(str(error)), RUN_FAILED)  # what a step raised keeps its lines
    except DetentError as error:
        return _say(one_line(str(error)), WRONG)
    except Exception as error:
        if not isinstance(error, _UsageError):
            raise
        return _say(one_line(f"{error.format_message().rstrip('.')}. Try `{_asked(error)} --help`."), WRONG)
    return result if isinstance(result, int) else 0


def _commands_in(given: Sequence[str]) -> list[str]:
    """The command that is called: the first word. No option before it takes a value."""
    return [word for word in given if not word.startswith("-")][:1]


def _say(message: str, code: int) -> int:
    with contextlib.suppress(ReaderGone, OutputFailed):
        _flush()
    print(f"detent: {message}", file=sys.stderr, flush=True)
    return code


def _asked(error: object) -> str:
    """The command whose help explains the usage error."""
    return str(getattr(getattr(error, "ctx", None), "command_path", "detent"))


def _flush() -> None:
    """Here rather than at the interpreter's exit, where a reader that is gone cannot be told quietly."""
    sys.stdout.flush()
