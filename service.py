"""Serve predictions: `POST /predict` for one house, `POST /predict_batch` for an array.

The way of a request: `HouseBody` or `HousesBody` validates the JSON and turns it into rows of
feature values. BentoML's adaptive batching joins the rows of requests that arrive together, and the
API method predicts them. `Prediction` or `Predictions` serializes the response. `TabularService`
adds limits, errors of one shape, metrics and logs. If the API method fails on a batch, it calls the
method with parts of it, so that only the records at fault get an error; docs/architecture.md has
the whole picture.
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
    model = model_reference  # BentoML turns `self.model` into the stored model

    @bentoml.on_deployment  # called on the class, once, before any worker starts
    def pin_model() -> None:
        """Make all workers serve this model: each imports this file, which then reads MODEL."""
        os.environ["MODEL"] = str(model_reference.resolve().tag)

    def __init__(self) -> None:
        """Load the model in a worker, and repeat the golden predictions of its training."""
        self.regressor = Regressor(self.model)

    # An API method gets the rows of all requests in a batch and returns a prediction for each row.
    # The size of a batch is its number of rows.
    @bentoml.api(batchable=True, input_spec=HouseBody, output_spec=Prediction, max_batch_size=100)
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
        """Predict the prices of many houses, in their order."""
        return self.regressor.predict(rows)
