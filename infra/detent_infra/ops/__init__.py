"""What operates a deployment: packaging, deploying, checks, prices. Nothing that runs workflows imports this."""
