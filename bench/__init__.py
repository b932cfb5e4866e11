"""Measures what docs and design promise: `python -m bench`, or `make bench`. See bench/README.md."""
