"""Score files: the service's checks and predictions for the rows of CSV, Parquet and JSON Lines.

`readers` reads a file as Arrow tables, `cells` converts their cells to JSON values, `scorer`
validates and predicts the rows, and `writers` writes files. `command` does all this on one machine,
and `ray_data` on a cluster, with `batches`. `checks` rejects unusable paths and columns.
"""
