"""What several suites of tests share: stand-ins for AWS, waiting, the command line, names that nobody else has."""
