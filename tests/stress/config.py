"""Configuration of a stress run: how much load each scenario applies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StressConfig:
    """Numbers of requests and clients, sizes and durations; the defaults are a full run."""

    hypothesis_examples: int = 1000  # for each property
    schemathesis_examples: int = 50  # for each operation
    fuzzed_requests: int = 100_000
    slow_clients: int = 1000
    random_paths: int = 10_000
    large_bodies: int = 4
    large_body_bytes: int = 100_000_000
    load_seconds: int = 3  # of each load phase
    overload_rounds: int = 7  # each alternates a load at capacity with an overload
    isolation_rounds: int = 5  # each loads with good clients alone, then with bad ones too
    isolation_min_share: float = 0.8  # of the good responses per second without bad clients
    soak_seconds: int = 60


SHORT_RUN = StressConfig(
    hypothesis_examples=50,
    schemathesis_examples=3,
    fuzzed_requests=2000,
    slow_clients=100,
    random_paths=500,
    large_bodies=2,
    load_seconds=1,
    overload_rounds=2,
    isolation_rounds=1,
    isolation_min_share=0.0,  # on a busy machine one round measures nothing
    soak_seconds=3,
)
