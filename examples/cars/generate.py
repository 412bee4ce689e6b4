"""Write used_cars.csv: 400 made-up offers of used cars, the same ones in each run."""

import csv
import random
from math import exp
from pathlib import Path

# By brand: the price in euros of a new car with 100 kW.
BRANDS = {"Aster": 24_000, "Borealis": 31_000, "Cirrus": 45_000, "Other: not listed": 20_000}
# By value: what it adds to the logarithm of the price. No car has the fuel hydrogen.
FUELS = {"petrol": 0.0, "diesel": 0.03, "hybrid": 0.08, "electric": -0.06}
BODIES = {"hatchback": 0.0, "estate": 0.05, "saloon": 0.02, "van, 7 or more seats": 0.1}
TRIMS = ["Base", "Comfort", "Family", "Sport", "Edition 10", "Style, leather"]
COLUMNS = ["brand", "fuel", "body", "trim", "age", "mileage", "power", "owners", "accident_free"]


def make_offer(rng: random.Random) -> list[object]:
    """Return a row: a car with its price, which depends on its features and on noise.

    The body, the mileage, the owners and `accident_free` may be missing.
    """
    brand, fuel, body = (rng.choices(list(of))[0] for of in (BRANDS, FUELS, BODIES))
    age = round(rng.uniform(0.2, 16), 1)
    mileage = 100 * round(age * rng.uniform(50, 220))
    power = round(rng.uniform(45, 210))
    owners = 1 + int(age * rng.random() / 3)
    accident_free = rng.random() < 0.85
    log_factor = FUELS[fuel] + BODIES[body] - 0.11 * age - mileage / 400_000
    log_factor += 0.6 * (power / 100 - 1) - 0.02 * (owners - 1) - 0.15 * (not accident_free)
    price = 10 * round(BRANDS[brand] * exp(log_factor + rng.gauss(0, 0.08)) / 10)
    trim = f"{rng.choice(TRIMS)} {power // 10 / 10:.1f}"
    optional = (body, mileage, owners, str(accident_free).lower())
    body_cell, mileage_cell, *rest = [maybe_missing(rng, value) for value in optional]
    return [brand, fuel, body_cell, trim, age, mileage_cell, power, *rest, price]


def maybe_missing(rng: random.Random, value: object) -> object:
    """Return a value or, with a probability of 5 %, an empty cell."""
    return "" if rng.random() < 0.05 else value


def main() -> None:
    """Write the file next to this script."""
    rng = random.Random(7)  # noqa: S311 - it protects no secret
    with (Path(__file__).parent / "used_cars.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "price"])
        writer.writerows(make_offer(rng) for _ in range(400))


if __name__ == "__main__":
    main()
