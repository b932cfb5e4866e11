"""The measured workloads as Lambda durable functions, counted with AWS's own local runner: `make bench-cost`."""
