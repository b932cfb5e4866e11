"""What a deployed stack consists of, read from AWS as facts."""
