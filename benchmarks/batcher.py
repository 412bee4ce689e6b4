"""A hand-written batcher: records that arrive during a prediction form the next batch."""

import asyncio
import os
from typing import Any

import joblib
from pydantic import BaseModel

MAX_BATCH = 100


class Batcher:
    """Predicts batches of records in a thread, with scikit-learn."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL_FILE"])
        self.queue: asyncio.Queue[tuple[list[Any], asyncio.Future[float]]] = asyncio.Queue()
        self.worker: asyncio.Task[None] | None = None

    async def predict(self, record: BaseModel) -> float:
        """Predict one record."""
        if self.worker is None:
            self.worker = asyncio.create_task(self.run())
        future = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((list(vars(record).values()), future))
        return await future

    async def run(self) -> None:
        """Predict batch after batch."""
        while True:
            batch = [await self.queue.get()]
            while len(batch) < MAX_BATCH and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            rows = [row for row, _ in batch]
            predictions = await asyncio.to_thread(self.model.predict, rows)
            for (_, future), prediction in zip(batch, predictions, strict=True):
                if not future.done():
                    future.set_result(float(prediction))
