"""What runs cost on AWS: list prices, the rules by which AWS meters, and an estimate from a run's records."""
