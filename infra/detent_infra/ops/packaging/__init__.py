"""Makes the folder that Lambda unpacks: detent, an application and its locked dependencies.

target    for which Python and processor, as template.yaml says
project   whose: dependencies and app, as pyproject.toml says
imports   what the app's modules import: nothing that is hidden, or left out
lock      which versions, with the hash of every file
folder    the folder itself: installed for the target, made the same every time, put in place in one step
size      what it weighs
archive   the folder as a zip, and the template that names it
samconfig what samconfig.toml says about a deploy
reading   how these files are read
origin    where detent itself was installed from
"""

from detent_infra.ops.packaging.folder import Folder, build
from detent_infra.ops.packaging.lock import LOCK, write_lock
from detent_infra.ops.packaging.project import Project, read_project
from detent_infra.ops.packaging.size import LIMIT, MB, Part, Size
from detent_infra.ops.packaging.target import Target, read_target

__all__ = [
    "Folder",
    "LIMIT",
    "LOCK",
    "MB",
    "Part",
    "Project",
    "Size",
    "Target",
    "build",
    "read_project",
    "read_target",
    "write_lock",
]
