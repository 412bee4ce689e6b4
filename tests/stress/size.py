"""How much is tried."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Numbers of requests, clients and seconds, as far as they differ from trial to trial."""

    examples: int = 1000  # records that hypothesis makes, of each kind
    schema_examples: int = 50  # requests that schemathesis makes, for each operation
    hostile: int = 100_000
    slow_clients: int = 1000
    paths: int = 10_000
    large_bodies: int = 4
    large_bytes: int = 100_000_000
    seconds: int = 3  # of each load
    rounds: int = 7  # of capacity and overload in turn
    soak_seconds: int = 60


SHORT = Size(
    examples=50,
    schema_examples=3,
    hostile=2000,
    slow_clients=100,
    paths=500,
    large_bodies=2,
    seconds=1,
    rounds=2,
    soak_seconds=3,
)
