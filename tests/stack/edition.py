"""Which edition of the application this folder holds. A later deploy changes the number, as it would change code."""

EDITION = 1
