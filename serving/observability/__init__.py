"""Metrics, access log and prediction log.

A leaf of the import graph: it knows plain values and `serving.settings`, nothing else of `serving`.
"""

# The columns of the prediction log beside the features; the prediction comes last.
LOG_COLUMNS = ("timestamp", "request_id", "record_number", "model_tag", "prediction")
