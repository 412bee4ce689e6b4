"""Metrics, access log, prediction log and error log.

Of `serving` it imports only `serving.settings`.
"""

# The columns of the prediction log that are not features. The features come before the last one.
LOG_COLUMNS = ("timestamp", "request_id", "record_number", "model_tag", "prediction")
