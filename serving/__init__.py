"""What any tabular regressor needs around its record type, its model and BentoML."""
