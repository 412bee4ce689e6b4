"""The same API on FastAPI, with a hand-written batcher."""

from fastapi import FastAPI

from benchmarks.batcher import Batcher
from house import House

app = FastAPI()
batcher = Batcher()


@app.post("/predict")
async def predict(house: House) -> dict[str, float]:
    """Predict the price of one house."""
    return {"prediction": await batcher.predict(house)}
