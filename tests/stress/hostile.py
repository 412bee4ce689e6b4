"""Hostile bodies and requests, a fixed corpus and random mutations of it, over raw sockets."""

import asyncio
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from tqdm import tqdm

from tests.stress.faults import is_last
from tests.stress.good import good_client
from tests.stress.oracle import count_predictions, is_legal
from tests.stress.row import Row
from tests.stress.service import Home, Service, serving
from tests.stress.size import Size
from tests.stress.slow import told
from tests.stress.wire import EXAMPLE_BODY, Answer, close, connect, read_answer, request

SEED = 13
CONNECTIONS = 64
PIPELINED = 8  # of 16 that may wait
RAW_SHARE = 0.1  # of all: each has a connection of its own, and many wait for the time limit
LIMITS = {"REQUEST_TIMEOUT": "0.5", "KEEP_ALIVE": "1", "ACCESS_LOG": "off"}
PATIENCE_SECONDS = 10  # for an answer, or the end of the connection
BY_DESIGN = {429, 503, 504}

FEATURE = b'"RM": 5.3'
BODIES = [
    EXAMPLE_BODY,
    b"[" + EXAMPLE_BODY + b"]",
    b"[" * 100_000,
    b'{"RM":' * 10_000,
    b"",
    b"null",
    b"\xef\xbb\xbf" + EXAMPLE_BODY,
    EXAMPLE_BODY.decode().encode("utf-16"),
    EXAMPLE_BODY + b"\x00",
    EXAMPLE_BODY[:-1],
    EXAMPLE_BODY * 2,
    pickle.dumps({"RM": 5.3}),
    b"CRIM=1&ZN=0",
    b'--x\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttp://127.0.0.1/\r\n--x--\r\n',
    *(
        EXAMPLE_BODY.replace(FEATURE, feature)
        for feature in [
            b'"RM": 1e999',
            b'"RM": -1e999',
            b'"RM": ' + b"9" * 5000,
            b'"RM": 0.' + b"0" * 5000 + b"1",
            b'"RM": 1e-999',
            b'"RM": NaN',
            b'"RM": Infinity',
            b'"RM": -0.0',
            b'"RM": 05.3',
            b'"RM": +5.3',
            b'"RM": .5',
            b'"RM": 5.',
            b'"RM": 0x5',
            b'"RM": "5.3"',
            b'"RM": true',
            b'"RM": null',
            b'"RM": [5.3]',
            b'"RM": {"__class__": "os.system"}',
            b'"RM": 5.3, "RM": 5.3',
            b'"\\u0052M": 5.3',
            b'"RM\\u0000": 5.3',
            b'"RM\\ud800": 5.3',
            b'"R\xffM": 5.3',
            b'"rm": 5.3',
            b'"RM": 5.3, "url": "http://127.0.0.1/"',
            b'"RM": 5.3, "__proto__": {}',
            b'"RM": 5.3 /* comment */',
            b'"RM": 5.3,',
            b"'RM': 5.3",
        ]
    ),
]
LENGTH = b"Content-Length: %d\r\n" % len(EXAMPLE_BODY)
GOOD = request()
CHUNKED = GOOD.replace(LENGTH, b"Transfer-Encoding: chunked\r\n").removesuffix(EXAMPLE_BODY)
CHUNK = b"%x\r\n%b\r\n" % (len(EXAMPLE_BODY), EXAMPLE_BODY)
JSON_TYPE = b"Content-Type: application/json"
FORM = b"Content-Type: multipart/form-data; boundary=x"
REQUESTS = [
    GOOD,
    CHUNKED + CHUNK + b"0\r\n\r\n",
    CHUNKED + CHUNK,
    CHUNKED + b"ffffffffffffffff1\r\n" + EXAMPLE_BODY,
    CHUNKED + b"-1\r\n" + EXAMPLE_BODY,
    CHUNKED + CHUNK + b"0\r\nContent-Length: 5\r\n\r\n",
    GOOD.replace(LENGTH, LENGTH + b"Transfer-Encoding: chunked\r\n"),
    GOOD.replace(LENGTH, b"Transfer-Encoding: chunked\r\n" + LENGTH),
    GOOD.replace(LENGTH, LENGTH + b"Transfer-Encoding: x, chunked\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"Transfer-Encoding:\x0bchunked\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"Transfer-Encoding : chunked\r\n"),
    GOOD.replace(LENGTH, LENGTH + LENGTH),
    GOOD.replace(LENGTH, LENGTH + b"Content-Length: 5\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: 5\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: 999\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: +5\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: -1\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: 5,5\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: " + b"9" * 500 + b"\r\n"),
    GOOD.replace(LENGTH, b"Content-Length: 104857600\r\n"),
    GOOD.replace(LENGTH, b""),
    GOOD.replace(LENGTH, LENGTH + b"X: x\r\n" * 5000),
    GOOD.replace(LENGTH, LENGTH + b"X: " + b"x" * 100_000 + b"\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"X: a\r\n b\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"X: a\rX-Request-ID: b\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"X-Request-ID: a\nSet-Cookie: b\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"X-Request-ID: \x00\xff\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"Expect: 100-continue\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"Connection: close\r\n"),
    GOOD.replace(LENGTH, LENGTH + b"Content-Encoding: gzip\r\n"),
    GOOD.replace(JSON_TYPE, FORM),
    GOOD.replace(JSON_TYPE, b"Content-Type: application/vnd.bentoml+pickle"),
    GOOD.replace(JSON_TYPE, b"Content-Type: application/x-www-form-urlencoded"),
    GOOD.replace(JSON_TYPE, b"Content-Type: application/json; charset=utf-7"),
    GOOD.replace(JSON_TYPE + b"\r\n", b""),
    GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    GOOD.replace(b"HTTP/1.1", b"HTTP/0.9"),
    GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
    GOOD.replace(b"HTTP/1.1", b"HTTP/1.1 x"),
    GOOD.replace(b"\r\n", b"\n"),
    *(
        GOOD.replace(b"POST /predict", line)
        for line in [
            b"POST http://example.com/predict",
            b"POST //predict",
            b"POST /predict/",
            b"POST /predict?x=" + b"x" * 5000,
            b"POST /predict%00",
            b"POST /%70redict",
            b"POST /../../etc/passwd",
            b"POST /static_content/..%2f..%2fservice.py",
            b"GET /static_content/../../../service.py",
            b"POST *",
            b"OPTIONS *",
            b"GET /predict",
            b"TRACE /predict",
            b"PROPFIND /predict",
            b"CONNECT example.com:80",
            b"post /predict",
            b"POST  /predict",
            b"POST /pre dict",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nPOST /predict",
        ]
    ),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 100,
    b"\r\n" * 100,
    b"GET /",
]


def hostile_requests(home: Home, size: Size) -> Iterator[Row]:
    """Send them all, mutated at random, while a good client is served."""
    raw = int(size.hostile * RAW_SHARE)
    with serving(home, **LIMITS) as service, good_client(home, service) as good:
        bodies = asyncio.run(attack(service, size.hostile - raw, send_bodies))
        requests = asyncio.run(attack(service, raw, send_raw))
        faults = service.faults()
    yield row("hostile bodies", bodies)
    yield row("hostile requests", requests)
    yield Row("tracebacks and errors in the log", 1, faults, str(faults), "0", not faults)
    figure = f"p50 {good.p50_ms:.0f} ms, p99 {good.p99_ms:.0f} ms"
    yield Row("good client beside them", good.requests, good.wrong, figure, "all", not good.wrong)


def row(what: str, tally: Counter) -> Row:
    """Return what came of an attack; what is not a status is a fault, with an example."""
    faults = {name: times for name, times in tally.items() if isinstance(name, str)}
    lost = sum(faults.values())
    tally = Counter({status: tally[status] for status in tally.keys() - faults.keys()})
    figure = "; ".join(faults)[:300] or told(tally)
    return Row(what, tally.total(), lost, figure, "no 5xx, no wrong 200", not lost)


async def attack(service: Service, count: int, send) -> Counter:
    """Send so many requests from many connections at once; return how they were answered."""
    tally: Counter = Counter()
    with tqdm(total=count, unit="request", leave=False, disable=None) as bar:
        clients = [send(service, count // CONNECTIONS, n, tally, bar) for n in range(CONNECTIONS)]
        await asyncio.gather(*clients)
    return tally


async def send_bodies(service: Service, count: int, seed: int, tally: Counter, bar: tqdm) -> None:
    """Send hostile bodies in whole requests, several at once."""
    rng = random.Random(f"{SEED} {seed}")
    for _ in range(0, count, PIPELINED):
        bodies = [mutated(rng, rng.choice(BODIES)) for _ in range(PIPELINED)]
        paths = [rng.choice(["/predict", "/predict_batch"]) for _ in bodies]
        reader, writer = await connect(service)
        for body, path in zip(bodies, paths, strict=True):
            writer.write(request(body, path))
        for body, path in zip(bodies, paths, strict=True):
            answer = await read_answer(reader)
            tally[verdict(answer, is_legal(body, path))] += 1
            bar.update()
            if is_last(answer):
                break
        await close(writer)


async def send_raw(service: Service, count: int, seed: int, tally: Counter, bar: tqdm) -> None:
    """Send what is hardly HTTP, each on a connection of its own."""
    rng = random.Random(f"{SEED} {seed}")
    for _ in range(count):
        sent = mutated(rng, rng.choice(REQUESTS)) or GOOD
        reader, writer = await connect(service)
        writer.write(sent)
        answers = []
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while answer := await read_answer(reader):
                    answers.append(answer)
        await close(writer)
        tally[fault_of(sent, answers) or answers[-1].status] += 1
        bar.update()


def fault_of(sent: bytes, answers: list[Answer]) -> str:
    """Return what is wrong with the answers to what was sent."""
    if not answers:
        return f"no answer to {sent[:300]!r}"
    verdicts = [verdict(answer, True) for answer in answers]
    faults = [found for found in verdicts if isinstance(found, str)]
    predictions = sum(b"x-model-tag" in answer.headers for answer in answers)
    if predictions > count_predictions(sent):
        faults.append(f"{predictions} predictions for {sent[:300]!r}")
    return "; ".join(faults)


def verdict(answer: Answer | None, legal: bool) -> int | str:
    """Return the status of an answer, or what is wrong with it."""
    if answer is None:
        return "no answer"
    if not answer.is_well_formed():
        return f"{answer.status} of another shape {answer}"
    if answer.status >= 500 and answer.status not in BY_DESIGN:
        return f"status {answer.status}"
    if answer.status == 200 and not legal:
        return "wrong 200"
    return answer.status


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return data with a few bytes changed, added, removed or repeated, or as it is."""
    changed = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        place = rng.randrange(len(changed) + 1)
        end = place + rng.choice([0, 1, 1, 3, 20])
        part = rng.choice([b"", rng.randbytes(1), changed[place:end] * 2, rng.choice(DICTIONARY)])
        changed[place:end] = part
    return bytes(changed)


DICTIONARY = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\x00", b"\r\n", b"\n", b" ", b"\xff", b"e",
    b"-", b"1e999", b"NaN", b"0", b"9" * 20, b"\\u0000", b"HTTP/1.1", b"Transfer-Encoding: chunked",
    b"Content-Length: 0\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip
