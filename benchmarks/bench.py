"""Measure our service and others in interleaved rounds, each on one core.

Prints every figure with its target, and writes results/ and the tables of the README. `QUICK=1`
takes four minutes instead of an hour and writes nothing: one short round, no soak, no ablations.
"""

import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

import bentoml
import psutil
from tqdm import tqdm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from house import EXAMPLE, NAME  # noqa: E402

QUICK = bool(os.environ.get("QUICK"))
ROUNDS, SECONDS, SOAK_MINUTES = (1, 3, 0) if QUICK else (3, 4, 10)
ABLATION_ROUNDS, ABLATION_SECONDS = 4, 2
ABLATION_CONNECTIONS = ("64", "1")
# Measured in this order without a pause: "1" is one client right after a burst. "64 new" opens a
# new connection for each request.
CONNECTIONS = {"64": 64, "16": 16, "1": 1, "64 new": 64}
PORT = "3999"
URL = f"http://127.0.0.1:{PORT}"
PREDICTION = 12.273424794987879
BIN = Path(sys.executable).parent
OURS, FLASK = "this bundle", "Flask-RESTful, gunicorn"
OURS_SKLEARN = "this bundle, scikit-learn predicts"
DOCUMENTED, BASELINE = "BentoML as documented", "uvicorn, no prediction"
UVICORN = f"uvicorn --port {PORT} --log-level error"
SERVERS = {
    OURS: "bentoml serve --working-dir ..",
    OURS_SKLEARN: "bentoml serve --working-dir ..",
    FLASK: f"gunicorn --bind 127.0.0.1:{PORT} --log-level error flask_api:app",
    "FastAPI, uvicorn": f"{UVICORN} fastapi_api:app",
    "FastAPI, batches by hand": f"{UVICORN} fastapi_batcher:app",
    "Starlette, batches by hand": f"{UVICORN} starlette_batcher:app",
    DOCUMENTED: f"bentoml serve bentoml_docs:Documented --port {PORT}",
    BASELINE: f"{UVICORN} --lifespan off baseline:app",
}
ABLATION = "bentoml serve ablation:HousePrice"
TRACING = "services.tracing.exporter_type=in_memory services.tracing.sample_rate=1.0"
Figures = dict[str, Any]


def main() -> None:
    """Measure and print; unless QUICK, publish the results."""
    cores = sorted(os.sched_getaffinity(0))
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: install it, on Debian with `apt-get install wrk`")
    if len(cores) < 2:
        print("There is only one core: server and load generator share it.")
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder), cores[:1], cores[-1:])
        results = bench.run()
    print(f"{report(results)}\n\n{ablation_table(results)}")
    if not QUICK:
        publish(results)


class Bench:
    """Runs servers and the load generator on separate cores."""

    def __init__(self, folder: Path, server_cores: list[int], load_cores: list[int]) -> None:
        self.server_cores, self.load_cores = server_cores, load_cores
        self.folder = folder
        self.ablations = ablations(folder / "predictions")
        self.sklearn_store = folder / "sklearn"
        self.write_bodies("records", [json.dumps(record) for record in records(200)])
        arrays = [json.dumps({"input_series": [list(r.values())]}) for r in records(200)]
        self.write_bodies("arrays", arrays)
        self.write_bodies("batches", [json.dumps(records(1000, seed)) for seed in range(5)])
        self.env = os.environ | {
            "PORT": PORT,
            "MODEL_FILE": bentoml.models.get(f"{NAME}:latest").path_of("saved_model.pkl"),
            "PYTHONPATH": str(HERE.parent),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "BENTOML_DO_NOT_TRACK": "true",
        }

    def write_bodies(self, name: str, lines: list[str]) -> None:
        """Write request bodies for the load generator, one per line."""
        (self.folder / name).write_text("\n".join(lines) + "\n")

    def run(self) -> Figures:
        """Run everything, and return all figures."""
        self.train_sklearn_model()
        ablation_steps = ABLATION_ROUNDS * (1 + 2 * len(self.ablations)) if self.ablations else 0
        steps = ROUNDS * len(SERVERS) + ablation_steps + 4 + SOAK_MINUTES
        with tqdm(total=steps, unit="step") as bar:
            rounds: dict[str, list[Figures]] = {name: [] for name in SERVERS}
            for _ in range(ROUNDS):
                for name, command in SERVERS.items():
                    bar.set_description(name)
                    store = {"BENTOML_HOME": str(self.sklearn_store)}
                    env = store if name == OURS_SKLEARN else {}
                    rounds[name].append(self.throughput(command, env))
                    bar.update()
            ratios = self.ablation_ratios(bar) if self.ablations else {}
            results = {
                "date": datetime.now(UTC).date().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
                "pinned": self.server_cores != self.load_cores,
                "rounds": ROUNDS,
                "seconds": SECONDS,
                "servers": {name: summarize(rounds[name]) for name in SERVERS},
                "ablations": ratios,
            }
            for figure in (self.batch, self.start, self.workers, self.memory):
                bar.set_description(figure.__name__)
                results |= figure(bar)
                bar.update()
        return results

    def train_sklearn_model(self) -> None:
        """Train the model without an export, in a separate model store."""
        env = self.env | {"BENTOML_HOME": str(self.sklearn_store)}
        subprocess.run(["python", "sklearn_model.py"], cwd=HERE, env=env, check=True)

    def ablation_ratios(self, bar: tqdm) -> Figures:
        """Return the relative CPU times per request of each round, by ablation and connections.

        Each is relative to the complete service, measured before and after the ablation: the speed
        of the machine changes within minutes. Ratios of requests/s are too noisy.
        """
        ratios: Figures = {name: {c: [] for c in ABLATION_CONNECTIONS} for name in self.ablations}
        for _ in range(ABLATION_ROUNDS):
            before = self.cpu_times({})
            bar.update()
            for name, env in self.ablations.items():
                bar.set_description(f"without {name}")
                without = self.cpu_times(env)
                after = self.cpu_times({})
                for c in ABLATION_CONNECTIONS:
                    ratios[name][c].append(without[c] / mean([before[c], after[c]]))
                before = after
                bar.update(2)
        return ratios

    def cpu_times(self, env: dict[str, str]) -> dict[str, float]:
        """Return the CPU time of the worker per request, in us, at each number of connections."""
        with self.serving(ABLATION, **env) as server:
            self.load(64, "records", 1)
            return {
                c: self.load_measuring_cpu(server, CONNECTIONS[c], "records", ABLATION_SECONDS)[
                    "cpu_us"
                ]
                for c in ABLATION_CONNECTIONS
            }

    def load_measuring_cpu(
        self, server: subprocess.Popen, connections: int, bodies: str, seconds: int, **options: Any
    ) -> Figures:
        """Run a load; return its figures and the CPU time of the server per request, in us."""
        before = cpu_seconds(server)
        measured = self.load(connections, bodies, seconds, **options)
        used = cpu_seconds(server) - before
        return {**measured, "cpu_us": 1e6 * used / measured["requests"]}

    def throughput(self, command: str, env: dict[str, str]) -> Figures:
        """Return requests/s, latencies and failures at each number of connections."""
        bodies = "arrays" if "docs" in command else "records"
        with self.serving(command, **env) as server:
            self.load(64, bodies, 2)
            return {
                name: self.load_measuring_cpu(server, count, bodies, SECONDS, close="new" in name)
                for name, count in CONNECTIONS.items()
            }

    def batch(self, bar: tqdm) -> Figures:
        """Return records/s of /predict_batch with 1000 records, and of a loop over `predict`."""
        with self.serving(SERVERS[OURS]):
            loads = [self.load(4, "batches", SECONDS, "/predict_batch") for _ in range(3)]
        code = (
            "import joblib, json, os, sys, time, numpy as np;"
            "model = joblib.load(os.environ['MODEL_FILE']);"
            "X = np.array([list(r.values()) for r in json.loads(open(sys.argv[1]).readline())]);"
            "n = 0; t = time.time();\n"
            f"while time.time() < t + {SECONDS}: model.predict(X); n += len(X)\n"
            "print(n / (time.time() - t))"
        )
        pinned = self.pin(self.server_cores)
        command = ["python", "-c", code, str(self.folder / "batches")]
        loops = [
            subprocess.run(
                command, env=self.env, preexec_fn=pinned, capture_output=True, check=True
            )
            for _ in range(3)
        ]
        rate = median(load["rate"] for load in loads) * 1000
        predict_loop = median(float(loop.stdout) for loop in loops)
        return {"batch": {"records_per_second": rate, "predict_loop": predict_loop}}

    def start(self, bar: tqdm) -> Figures:
        """Return the seconds from `bentoml serve` to the first correct response, by service."""
        times: dict[str, list[float]] = {OURS: [], DOCUMENTED: []}
        for _ in range(1 if QUICK else 5):
            for name, measured in times.items():
                begin = time.monotonic()
                with self.serving(SERVERS[name]):
                    measured.append(time.monotonic() - begin)
        return {"first_answer_seconds": {name: median(times[name]) for name in times}}

    def workers(self, bar: tqdm) -> Figures:
        """Return requests/s of one and two workers; load generator and workers share all cores."""
        pinned = self.server_cores, self.load_cores
        self.server_cores = self.load_cores = [*self.server_cores, *self.load_cores]
        rates = {}
        for count in ("1", "2"):
            with self.serving(SERVERS[OURS], WORKERS=count):
                self.load(64, "records", 2)
                rates[count] = median(self.load(64, "records", SECONDS)["rate"] for _ in range(3))
        self.server_cores, self.load_cores = pinned
        return {"workers": rates}

    def memory(self, bar: tqdm) -> Figures:
        """Return the resident memory of all processes after each minute of full load."""
        with self.serving(SERVERS[OURS]) as server:
            failed = self.load(64, "records", SECONDS)["failed"]
            sizes = [resident_memory(server)]
            for _ in range(SOAK_MINUTES):
                failed += self.load(64, "records", 60)["failed"]
                sizes.append(resident_memory(server))
                bar.update()
        return {"memory_mb": sizes, "soak_failed": failed}

    @contextmanager
    def serving(self, command: str, **env: str) -> Iterator[subprocess.Popen]:
        """Start a server, wait for its first correct response, and stop it on exit."""
        server = subprocess.Popen(
            command.split(),
            cwd=HERE,
            env=self.env | env,
            stdout=subprocess.DEVNULL,
            preexec_fn=self.pin(self.server_cores),
        )
        try:
            wait_for_answer("docs" in command)
            yield server
        finally:
            server.terminate()
            server.wait()

    def load(
        self,
        connections: int,
        bodies: str,
        seconds: int,
        path: str = "/predict",
        close: bool = False,
    ) -> Figures:
        """Run wrk; return the figures that load.lua prints, and the rate in requests/s."""
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", "load.lua", URL + path]
        done = subprocess.run(
            [*wrk, "--", str(self.folder / bodies), *(["close"] if close else [])],
            cwd=HERE,
            preexec_fn=self.pin(self.load_cores),
            capture_output=True,
            check=True,
        )
        measured = json.loads(done.stdout.splitlines()[-1])
        return {**measured, "rate": measured["requests"] / measured["seconds"]}

    def pin(self, cores: list[int]) -> Any:
        """Return a function that pins the calling process to these cores."""
        return lambda: os.sched_setaffinity(0, cores)


def ablations(folder: Path) -> dict[str, dict[str, str]]:
    """Return the environment variables of each ablation, by name."""
    if QUICK:
        return {}
    names = re.findall(r'^    "(.*)": ', (HERE / "ablation.py").read_text(), re.MULTILINE)
    return {
        **{name: {"ABLATION": name} for name in names},
        "tracing off": {"BENTOML_CONFIG_OPTIONS": TRACING},
        "(access log off)": {"ACCESS_LOG": "off"},
        "(prediction log on)": {"PREDICTION_LOG": str(folder)},
    }


def records(count: int, seed: int = 0) -> list[dict[str, float]]:
    """Return the example with random values of two features, `count` times."""
    rng = random.Random(seed)
    return [
        EXAMPLE | {"RM": round(rng.uniform(4, 8), 3), "LSTAT": round(rng.uniform(2, 35), 2)}
        for _ in range(count)
    ]


def wait_for_answer(documented: bool) -> None:
    """Wait for a prediction of the example; end the benchmark if it is wrong."""
    body = {"input_series": [list(EXAMPLE.values())]} if documented else EXAMPLE
    headers = {"Content-Type": "application/json"}
    request = Request(URL + "/predict", json.dumps(body).encode(), headers)
    for _ in range(3000):
        with suppress(OSError):
            answer = json.load(urlopen(request))
            prediction = answer[0] if documented else answer["prediction"]
            if abs(prediction - PREDICTION) > 1e-9:
                raise SystemExit(f"A server predicts {prediction}")
            return
        time.sleep(0.01)
    raise SystemExit("A server does not answer")


def cpu_seconds(server: subprocess.Popen) -> float:
    """Return the CPU time of a server's workers: its children or, without any, itself."""
    process = psutil.Process(server.pid)
    workers = process.children(recursive=True) or [process]
    return sum(sum(worker.cpu_times()[:2]) for worker in workers)


def resident_memory(server: subprocess.Popen) -> float:
    """Return the resident memory of a process and all of its children, in MB."""
    parent = psutil.Process(server.pid)
    return sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)]) / 1e6


def summarize(rounds: list[Figures]) -> Figures:
    """Return the medians of several rounds, the range of the rates, and the sum of failures."""
    return {
        c: {
            "rate": median(r[c]["rate"] for r in rounds),
            "spread": [min(r[c]["rate"] for r in rounds), max(r[c]["rate"] for r in rounds)],
            "p50_ms": median(r[c]["p50_ms"] for r in rounds),
            "p99_ms": median(r[c]["p99_ms"] for r in rounds),
            "cpu_us": median(r[c]["cpu_us"] for r in rounds),
            "failed": sum(r[c]["failed"] for r in rounds),
        }
        for c in CONNECTIONS
    }


def targets(results: Figures) -> Iterator[tuple[str, float, str]]:
    """Yield each figure with its target."""
    ours, flask = results["servers"][OURS], results["servers"][FLASK]
    baseline = results["servers"][BASELINE]
    for c, least in (("64", 11), ("16", 9), ("1", 5)):
        name = f"requests/s, {heading(c)}, relative to Flask"
        yield name, ours[c]["rate"] / flask[c]["rate"], f">= {least}"
    for c, share in (("64", 0.4), ("16", 0.38), ("1", 0.35)):
        ratio = ours[c]["rate"] / baseline[c]["rate"]
        name = f"requests/s, {heading(c)}, relative to uvicorn without prediction"
        yield name, ratio, f">= {share}"
    for c, most in (("64", 0.09), ("1", 0.25)):
        name = f"p99, {heading(c)}, relative to Flask"
        yield name, ours[c]["p99_ms"] / flask[c]["p99_ms"], f"<= {most}"
    failed = sum(figures["failed"] for figures in ours.values()) + results["soak_failed"]
    yield "failed requests", failed, "<= 0"
    batch = results["batch"]
    share = batch["records_per_second"] / batch["predict_loop"]
    yield "records/s in arrays of 1000, relative to scikit-learn's predict", share, ">= 0.7"
    sizes = results["memory_mb"]
    if len(sizes) > 2:
        yield "memory after 10 minutes, relative to 1 minute", sizes[-1] / sizes[1], "<= 1.01"
    yield "resident memory, MB", sizes[0], "<= 300"
    seconds = results["first_answer_seconds"]
    yield "time to first prediction, s", seconds[OURS], "<= 2.5"
    yield "time to first prediction, BentoML as documented, s", seconds[DOCUMENTED], ""
    workers = results["workers"]
    yield "requests/s, two workers, relative to one", workers["2"] / workers["1"], ""


def heading(name: str) -> str:
    """Return a key of CONNECTIONS as a heading."""
    return f"{name} connection" if name == "1" else f"{name} connections"


def report(results: Figures) -> str:
    """Return the table of the targets and the table of the servers, in Markdown."""
    lines = ["| figure | measured | target | |", "|---|---|---|---|"]
    for name, value, target in targets(results):
        met = "" if not target else "met" if meets_target(value, target) else "**missed**"
        lines.append(f"| {name} | {value:.3g} | {target} | {met} |")
    columns = " | ".join(map(heading, CONNECTIONS))
    head = f"| requests/s (p99, ms) | {columns} | CPU us/request at 64, 1 | failed |"
    lines += ["", head, "|---|---|---|---|---|---|---|"]
    for name, figures in results["servers"].items():
        failed = sum(f["failed"] for f in figures.values())
        cpu = ", ".join(f"{figures[c]['cpu_us']:.0f}" for c in ABLATION_CONNECTIONS)
        cells = " | ".join(f"{f['rate']:.0f} ({f['p99_ms']:.1f})" for f in figures.values())
        lines.append(f"| {name} | {cells} | {cpu} | {failed} |")
    return "\n".join(lines)


def ablation_table(results: Figures) -> str:
    """Return the table of the ablations, in Markdown."""
    lines = ["| without this, relative CPU time | 64 connections | 1 connection |", "|---|---|---|"]
    for name, ratios in results["ablations"].items():
        by_connections = [ratios[c] for c in ABLATION_CONNECTIONS]
        cells = [f"{median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in by_connections]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def publish(results: Figures) -> None:
    """Write results/ and the tables of the README."""
    (HERE / "results/results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_chart(results)
    rounds = f"{results['rounds']} interleaved rounds of {results['seconds']} s"
    head = f"Measured on {results['date']}: {results['machine']}; medians of {rounds}."
    replace_block("results", f"{head}\n\n{report(results)}")
    replace_block("ablations", ablation_table(results))


def replace_block(name: str, text: str) -> None:
    """Replace the text between two comments of the README."""
    readme = HERE / "README.md"
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = readme.read_text().partition(start)
    readme.write_text(before + start + text + "\n" + end + rest.partition(end)[2])


def meets_target(value: float, target: str) -> bool:
    """Return whether a value meets a target such as `>= 5.0`."""
    sign, bound = target.split()
    return value >= float(bound) if sign == ">=" else value <= float(bound)


def draw_chart(results: Figures) -> None:
    """Plot the requests/s of the servers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    servers = [item for item in results["servers"].items() if item[0] != BASELINE]
    for index, (name, figures) in enumerate(servers):
        positions = [position + index / 8 for position in range(len(CONNECTIONS))]
        bars = axes.bar(positions, [f["rate"] for f in figures.values()], 0.12, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=5)
    ticks = [index + 0.4 for index in range(len(CONNECTIONS))]
    axes.set_xticks(ticks, [heading(c) for c in CONNECTIONS])
    axes.set_ylabel("requests/s, one server core")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(HERE / "results/chart.png", dpi=120)


if __name__ == "__main__":
    main()
