"""Write prediction logs."""

from serving.observability.prediction_log import PredictedRequest, PredictionLog
from serving.settings import Settings

START = 1_764_547_200  # 2025-12-01, 00:00 UTC


def write_log(folder, names, requests, tag="house_price:1", worker_index=1, **settings):
    """Log requests, which are pairs of rows and predictions, a minute apart; return their IDs."""
    log = PredictionLog(Settings(prediction_log=str(folder), **settings), names, worker_index)
    ids = []
    for n, (rows, predictions) in enumerate(requests):
        ids.append(f"{tag}-{worker_index}-{n}")
        log.add(PredictedRequest(START + 60 * n, ids[-1], tag, rows, predictions))
    log.writer.close()
    return ids
