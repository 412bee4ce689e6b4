"""House prices over HTTP: a model from the BentoML model store behind two prediction APIs.

The way of a request: the server reads it, within limits; the edge turns away what cannot be a
prediction request; `HouseBody` or `HousesBody` turns the JSON into rows of feature values, or
refuses it naming the faults; BentoML's adaptive batching joins the rows of requests that arrive
together, while a record that is alone goes ahead; the API method predicts them all; `Prediction` or
`Predictions` writes the answer to each request. `TabularService` ties it together.
"""

import gc
import os
from typing import Annotated

import bentoml
from pydantic import Field, TypeAdapter

from house import EXAMPLE, FEATURES, NAME, House
from serving._bentoml.service import TabularService
from serving.image import ENVS, IMAGE
from serving.model import RecordModel, card_app, specimens
from serving.records import Prediction, Predictions, Records, Row
from serving.settings import load_settings

settings = load_settings()
model = RecordModel(settings.model or f"{NAME}:latest", House, settings.allow_other_sklearn)


class HouseBody(Records):
    """One house, as a flat JSON object."""

    body = TypeAdapter(House)
    most_values = len(FEATURES)


class HousesBody(Records):
    """Houses, as a JSON array."""

    body = TypeAdapter(Annotated[list[House], Field(min_length=1, max_length=settings.max_records)])
    most_values = len(FEATURES) * settings.max_records


@bentoml.service(
    name=NAME,
    service_class=TabularService,
    http=settings.http,
    workers=settings.workers,
    image=IMAGE,
    envs=ENVS,
)
@bentoml.asgi_app(card_app(model))  # GET /model
class HousePrice:
    """Predicts what a house in the Boston area was worth around 1970, in thousands of dollars."""

    # Where `TabularService` looks for them. BentoML makes `self.model` the stored model.
    settings = settings
    model = model

    @bentoml.on_deployment  # BentoML calls it on the class
    def pin_model() -> None:
        """Before any worker starts: make all of them, and their successors, serve one model."""
        os.environ["MODEL"] = str(model.resolve().tag)

    def __init__(self) -> None:
        """In each worker, before it answers: load the model, and see that it predicts."""
        # Not at the top: the supervisor, which imports this file too, needs no scikit-learn, which
        # takes 100 MB and 0.8 s.
        from serving.regressor import Regressor

        self.regressor = Regressor(self.model)
        self.regressor.check(specimens(House, EXAMPLE))
        # A full collection walks all that the libraries imported, 40 to 75 ms during which no
        # request is served. What is alive by now stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()

    # The rows of an API are those of all requests in a batch, and so are the predictions. The size
    # of a batch is the number of its rows.
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
