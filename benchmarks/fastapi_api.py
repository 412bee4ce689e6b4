"""The same API on FastAPI and uvicorn, with the same record type and without batching."""

import os

import joblib
from fastapi import FastAPI

from house import House

model = joblib.load(os.environ["MODEL_FILE"])
app = FastAPI()


@app.post("/predict")
async def predict(house: House) -> dict[str, float]:
    """Predict the price of one house."""
    return {"prediction": model.predict([list(vars(house).values())])[0]}
