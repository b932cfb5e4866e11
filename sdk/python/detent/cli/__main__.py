"""`python -m detent.cli`, the same as `detent`."""

import sys

from detent.cli import main

sys.exit(main())
