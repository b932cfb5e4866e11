"""Starts AWS's runtime client over a Lambda folder, and lets it load nothing but that folder and the standard library.

    python -I -S -B lambda_bootstrap.py FOLDER CLIENT HANDLER

With -I and -S Python has no site-packages, no PYTHONPATH and no working directory on its path. What is loaded from
elsewhere all the same (through a .pth file, a path that somebody adds) ends the process with the file's name.
"""

import os
import sys
import sysconfig

folder, client, handler = sys.argv[1:]
LOADED = (".py", ".pyc", ".so")
ALLOWED = tuple(
    os.path.realpath(place) + os.sep
    for place in (folder, client, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
)
INSTALLED = tuple(f"{place}site-packages{os.sep}" for place in ALLOWED[2:])


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: it cannot be taken back, and sees what import does whoever asks for it."""
    if event not in ("open", "import"):
        return
    name = arguments[0] if event == "open" else arguments[1]
    if isinstance(name, str) and name.endswith(LOADED):
        path = os.path.realpath(name)
        if not path.startswith(ALLOWED) or path.startswith(INSTALLED):
            sys.stderr.write(f"loaded from outside the folder: {path}\n")
            sys.stderr.flush()
            os._exit(99)


sys.path[:0] = [folder, client]
sys.addaudithook(refuse)

from awslambdaric.__main__ import main  # noqa: E402

main([sys.argv[0], handler])
