"""Write used_cars.csv: 400 invented offers of used cars, the same ones each time."""

import csv
import random
from math import exp
from pathlib import Path

# A brand and what its cars cost new with 100 kW; nobody offers a hydrogen car.
BRANDS = {"Aster": 24_000, "Borealis": 31_000, "Cirrus": 45_000, "Other: not listed": 20_000}
FUELS = {"petrol": 0.0, "diesel": 0.03, "hybrid": 0.08, "electric": -0.06}
BODIES = {"hatchback": 0.0, "estate": 0.05, "saloon": 0.02, "van, 7 or more seats": 0.1}
TRIMS = ["Base", "Comfort", "Family", "Sport", "Edition 10", "Style, leather"]
COLUMNS = ["brand", "fuel", "body", "trim", "age", "mileage", "power", "owners", "accident_free"]


def offer(rng: random.Random) -> list[object]:
    """Return a car with its price, which falls with age and mileage and is never exact.

    Some sellers do not tell the body, the mileage, the owners, or whether there was an accident.
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
    told = [untold(rng, value) for value in (body, mileage, owners, str(accident_free).lower())]
    return [brand, fuel, told[0], trim, age, told[1], power, *told[2:], price]


def untold(rng: random.Random, value: object) -> object:
    """Return a value or, for one car in 20, an empty cell."""
    return "" if rng.random() < 0.05 else value


def main() -> None:
    """Write the file beside this one."""
    rng = random.Random(7)  # noqa: S311 - nothing is kept secret by it
    with (Path(__file__).parent / "used_cars.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "price"])
        writer.writerows(offer(rng) for _ in range(400))


if __name__ == "__main__":
    main()
