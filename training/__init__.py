"""What training any tabular regressor needs around its record type, its data and its estimator."""
