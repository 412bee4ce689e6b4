"""The same API on FastAPI, with the batching that one would write by hand."""

from fastapi import FastAPI

from benchmarks.batcher import Batcher
from house import House

app = FastAPI()
batcher = Batcher()


@app.post("/predict")
async def predict(house: House) -> dict[str, float]:
    """Predict the price of one house."""
    return {"prediction": await batcher.predict(house)}
