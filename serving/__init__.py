"""Serve a tabular regressor on BentoML: what service.py uses.

A request passes `_bentoml.connection` (uvicorn), `http.app` (authentication, limits, errors) and
`_bentoml.batching`, which calls `records` (validation, serialization) and, in batches, the
service's `regressor`.
"""

from serving._bentoml.container_image import ENVS, service_image
from serving._bentoml.tabular_service import TabularService
from serving.http.model_card import model_card_app
from serving.model import ModelReference
from serving.records import Prediction, Predictions, RequestBody, Row
from serving.regressor import Regressor
from serving.settings import load_settings

__all__ = [
    "ENVS",
    "ModelReference",
    "Prediction",
    "Predictions",
    "Regressor",
    "RequestBody",
    "Row",
    "TabularService",
    "load_settings",
    "model_card_app",
    "service_image",
]
