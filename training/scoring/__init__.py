"""Score files: the service's checks and predictions for the rows of CSV, Parquet and JSON Lines.

`tables` reads a file as Arrow tables, `columns` turns their cells into JSON values, `scorer` checks
and predicts them, `outputs` writes files, and `command` joins these on one machine.
"""
