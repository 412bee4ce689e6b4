"""Serve a tabular regressor on BentoML: the public API, which service.py uses.

docs/architecture.md shows how a request passes through the modules.
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
