"""What the prediction log tells: drift, the error once outcomes are known, and a replay."""
