"""The same API on Starlette, with a hand-written batcher."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.batcher import Batcher
from house import House

batcher = Batcher()


async def predict(request: Request) -> JSONResponse:
    """Predict the price of one house."""
    house = House.model_validate_json(await request.body())
    return JSONResponse({"prediction": await batcher.predict(house)})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
