"""House prices over HTTP: a model from the BentoML model store behind two prediction APIs.

The way of a request: `Edge` turns away what cannot be a prediction request, `OneHouse` or `Houses`
turns its JSON body into rows of feature values, or refuses it naming every fault, BentoML's
adaptive batching joins the rows of requests that arrive together, and `predict` answers for all.
"""

import gc
from typing import Annotated

import bentoml
from pydantic import Field, TypeAdapter

from house import EXAMPLE, House
from serving.edge import Edge
from serving.framework import TabularService
from serving.model import RecordModel, Regressor, card_app
from serving.records import Prediction, Predictions, Records, Row
from serving.settings import load_settings

settings = load_settings()


class OneHouse(Records):
    """One house, as a flat JSON object."""

    body = TypeAdapter(House)


class Houses(Records):
    """Houses, as a JSON array."""

    body = TypeAdapter(Annotated[list[House], Field(min_length=1, max_length=settings.max_records)])


@bentoml.service(
    name="house_price",
    service_class=TabularService,
    http={"port": settings.port},
    workers=settings.workers,
    # A backstop: the edge gives up first, in words of its own.
    traffic={"timeout": settings.request_timeout + 1},
)
@bentoml.asgi_app(card_app(House))
class HousePrice:
    """Predicts what a house in the Boston area was worth around 1970, in thousands of dollars."""

    model = RecordModel("house_price:latest", House)

    def __init__(self) -> None:
        """Load the model, and predict once: only then does /readyz say yes."""
        self.regressor = Regressor(self.model)
        self.regressor.predict([tuple(EXAMPLE.values())])
        # A full collection walks all that the libraries imported, 40 to 75 ms during which no
        # request is served. What is alive by now stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()

    @bentoml.api(batchable=True, input_spec=OneHouse, output_spec=Prediction, max_batch_size=100)
    def predict(self, rows: list[Row]) -> list[float]:
        """Predict the price of one house."""
        return self.regressor.predict(rows)

    @bentoml.api(
        batchable=True,
        input_spec=Houses,
        output_spec=Predictions,
        max_batch_size=settings.max_records,
    )
    def predict_batch(self, rows: list[Row]) -> list[float]:
        """Predict the prices of up to 1000 houses, in their order."""
        return self.regressor.predict(rows)


HousePrice.add_asgi_middleware(
    Edge, predictions={api.route for api in HousePrice.apis.values()}, settings=settings
)
