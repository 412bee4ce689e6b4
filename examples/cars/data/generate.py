"""Write used_cars.csv: 400 invented offers of used cars, the same ones each time."""

import csv
import random
from math import exp
from pathlib import Path

# A brand and what its cars cost new with 100 kW; nobody offers a hydrogen car.
BRANDS = {"Aster": 24_000, "Borealis": 31_000, "Cirrus": 45_000, "Other: not listed": 20_000}
FUELS = {"petrol": 0.0, "diesel": 0.03, "hybrid": 0.08, "electric": -0.06}
BODIES = {"hatchback": 0.0, "estate": 0.05, "saloon": 0.02, "van, 7 or more seats": 0.1}
COLUMNS = ["brand", "fuel", "body", "age", "mileage", "power", "owners", "accident_free", "price"]


def offer(rng: random.Random) -> list[object]:
    """Return a car with its price, which falls with age and mileage and is never exact."""
    brand, fuel, body = (rng.choices(list(of))[0] for of in (BRANDS, FUELS, BODIES))
    age = round(rng.uniform(0.2, 16), 1)
    mileage = 100 * round(age * rng.uniform(50, 220))
    power = round(rng.uniform(45, 210))
    owners = 1 + int(age * rng.random() / 3)
    accident_free = rng.random() < 0.85
    log_factor = FUELS[fuel] + BODIES[body] - 0.11 * age - mileage / 400_000
    log_factor += 0.6 * (power / 100 - 1) - 0.02 * (owners - 1) - 0.15 * (not accident_free)
    price = 10 * round(BRANDS[brand] * exp(log_factor + rng.gauss(0, 0.08)) / 10)
    return [brand, fuel, body, age, mileage, power, owners, str(accident_free).lower(), price]


def main() -> None:
    """Write the file beside this one."""
    rng = random.Random(7)  # noqa: S311 - nothing is kept secret by it
    with (Path(__file__).parent / "used_cars.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(offer(rng) for _ in range(400))


if __name__ == "__main__":
    main()
