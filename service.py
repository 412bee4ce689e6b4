"""The service: `POST /predict` predicts one house, `POST /predict_batch` an array of houses.

How a request is handled (docs/architecture.md has the details):
1. `HouseBody` or `HousesBody` validates the JSON and turns it into rows of feature values.
2. BentoML's adaptive batching joins rows of concurrent requests in batches, and may split arrays.
3. The API method below predicts the rows of a batch.
4. `Prediction` or `Predictions` serializes the response.

`TabularService` adds limits, JSON errors, metrics and logs. If the model fails for a batch, the
batch is divided, so that only requests with a record that the model can't predict get an error.
"""

import os

import bentoml

from house import NAME, House
from serving import (
    ENVS,
    ModelReference,
    Prediction,
    Predictions,
    Regressor,
    RequestBody,
    Row,
    TabularService,
    load_settings,
    model_card_app,
    service_image,
)

settings = load_settings()
# Fix the version of `latest` now: `service_image` and, later, `bentoml build` need the same model.
model_reference = ModelReference(settings.model or f"{NAME}:latest", House).pinned()


class HouseBody(RequestBody):
    """One house, as a flat JSON object."""

    record_type = House


class HousesBody(RequestBody):
    """Houses, as a JSON array."""

    record_type = House
    max_records = settings.max_records


@bentoml.service(
    name=NAME,
    service_class=TabularService,
    http=settings.http,
    workers=settings.workers,
    image=service_image(model_reference),
    envs=ENVS,
)
@bentoml.asgi_app(model_card_app(model_reference))  # GET /model
class HousePrice:
    """Predicts what a house in the Boston area was worth around 1970, in thousands of dollars."""

    settings = settings  # for TabularService
    model = model_reference  # in an instance, `self.model` is the stored model

    @bentoml.on_deployment  # once, before the workers start
    @staticmethod
    def pin_model() -> None:
        """Check the model, and pin it for the workers, too: each of them imports this module."""
        os.environ["MODEL"] = str(model_reference.resolve().tag)

    def __init__(self) -> None:
        """Load the model in a worker, and check that it predicts what it did after training."""
        self.regressor = Regressor(self.model)

    # `rows` are those of a batch, at most max_batch_size (100 by default), or of a part of it.
    @bentoml.api(batchable=True, input_spec=HouseBody, output_spec=Prediction)
    def predict(self, rows: list[Row]) -> list[float]:
        """Predict the price of one house."""
        return self.regressor.predict(rows)

    @bentoml.api(
        batchable=True,
        input_spec=HousesBody,
        output_spec=Predictions,
        max_batch_size=settings.max_records,
    )
    def predict_batch(self, rows: list[Row]) -> list[float]:
        """Predict the prices of many houses, in the order of the request."""
        return self.regressor.predict(rows)
