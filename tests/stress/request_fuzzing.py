"""Mutation fuzzing over raw sockets: a fixed corpus of bodies and requests, mutated at random."""

import asyncio
import pickle
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from tqdm import tqdm

from tests.helpers.raw_http import CHUNKED_HEAD, EXAMPLE_BODY, request
from tests.stress.config import StressConfig
from tests.stress.raw_http import (
    Response,
    close,
    closes_connection,
    connect,
    read_response,
)
from tests.stress.reference_client import reference_client
from tests.stress.reference_validation import count_valid_requests, is_valid_body
from tests.stress.result import Result, format_outcomes
from tests.stress.server import ModelStore, Server, run_server

SEED = 13
CONNECTIONS = 64
PIPELINED = 8  # requests on a connection; the server queues up to 16
# Share of the raw requests. Each needs its own connection, and many wait for the request timeout.
RAW_SHARE = 0.1
SETTINGS = {"REQUEST_TIMEOUT": "0.5", "KEEP_ALIVE": "1", "ACCESS_LOG": "off"}
RESPONSE_TIMEOUT_SECONDS = 10  # until the server closes the connection
EXPECTED_STATUSES = {429, 503, 504}  # load shedding and timeouts are not failures

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
CONTENT_LENGTH = b"Content-Length: %d\r\n" % len(EXAMPLE_BODY)
VALID_REQUEST = request()
CHUNK = b"%x\r\n%b\r\n" % (len(EXAMPLE_BODY), EXAMPLE_BODY)
JSON_TYPE = b"Content-Type: application/json"
MULTIPART_TYPE = b"Content-Type: multipart/form-data; boundary=x"
REQUESTS = [
    VALID_REQUEST,
    CHUNKED_HEAD + CHUNK + b"0\r\n\r\n",
    CHUNKED_HEAD + CHUNK,
    CHUNKED_HEAD + b"ffffffffffffffff1\r\n" + EXAMPLE_BODY,
    CHUNKED_HEAD + b"-1\r\n" + EXAMPLE_BODY,
    CHUNKED_HEAD + CHUNK + b"0\r\nContent-Length: 5\r\n\r\n",
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Transfer-Encoding: chunked\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Transfer-Encoding: chunked\r\n" + CONTENT_LENGTH),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Transfer-Encoding: x, chunked\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Transfer-Encoding:\x0bchunked\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Transfer-Encoding : chunked\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + CONTENT_LENGTH),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Content-Length: 5\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: 5\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: 999\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: +5\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: -1\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: 5,5\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: " + b"9" * 500 + b"\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b"Content-Length: 104857600\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, b""),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"X: x\r\n" * 5000),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"X: " + b"x" * 100_000 + b"\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"X: a\r\n b\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"X: a\rX-Request-ID: b\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"X-Request-ID: a\nSet-Cookie: b\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"X-Request-ID: \x00\xff\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Expect: 100-continue\r\n"),
    VALID_REQUEST.replace(
        CONTENT_LENGTH, CONTENT_LENGTH + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    ),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Connection: close\r\n"),
    VALID_REQUEST.replace(CONTENT_LENGTH, CONTENT_LENGTH + b"Content-Encoding: gzip\r\n"),
    VALID_REQUEST.replace(JSON_TYPE, MULTIPART_TYPE),
    VALID_REQUEST.replace(JSON_TYPE, b"Content-Type: application/vnd.bentoml+pickle"),
    VALID_REQUEST.replace(JSON_TYPE, b"Content-Type: application/x-www-form-urlencoded"),
    VALID_REQUEST.replace(JSON_TYPE, b"Content-Type: application/json; charset=utf-7"),
    VALID_REQUEST.replace(JSON_TYPE + b"\r\n", b""),
    VALID_REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
    VALID_REQUEST.replace(b"HTTP/1.1", b"HTTP/0.9"),
    VALID_REQUEST.replace(b"HTTP/1.1", b"HTTP/2.0"),
    VALID_REQUEST.replace(b"HTTP/1.1", b"HTTP/1.1 x"),
    VALID_REQUEST.replace(b"\r\n", b"\n"),
    *(
        VALID_REQUEST.replace(b"POST /predict", line)
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
DICTIONARY = [
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\x00", b"\r\n", b"\n", b" ", b"\xff", b"e",
    b"-", b"1e999", b"NaN", b"0", b"9" * 20, b"\\u0000", b"HTTP/1.1", b"Transfer-Encoding: chunked",
    b"Content-Length: 0\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


def request_fuzzing(store: ModelStore, config: StressConfig) -> Iterator[Result]:
    """Send mutated bodies and mutated raw requests while the reference client runs."""
    raw = int(config.fuzzed_requests * RAW_SHARE)
    with run_server(store, **SETTINGS) as server, reference_client(store, server) as stats:
        bodies = asyncio.run(fuzz(server, config.fuzzed_requests - raw, send_bodies))
        requests = asyncio.run(fuzz(server, raw, send_raw_requests))
        log_errors = server.count_log_errors()
    yield fuzzing_result("fuzzed bodies", bodies)
    yield fuzzing_result("fuzzed raw requests", requests)
    check = "tracebacks and errors in the log"
    yield Result(check, 1, log_errors, str(log_errors), "0", not log_errors)
    yield stats.result("reference client during fuzzing")


def fuzzing_result(check: str, outcomes: Counter) -> Result:
    """Return the result of a fuzzing run.

    An outcome is the status of a correct response, or the description of an error.
    """
    errors = {outcome: n for outcome, n in outcomes.items() if isinstance(outcome, str)}
    failed = sum(errors.values())
    statuses = Counter({status: outcomes[status] for status in outcomes.keys() - errors.keys()})
    measured = "; ".join(errors)[:300] or format_outcomes(statuses)
    target = "no 5xx, no 200 for invalid input"
    return Result(check, statuses.total(), failed, measured, target, not failed)


async def fuzz(server: Server, count: int, send: Callable[..., Awaitable[None]]) -> Counter:
    """Send `count` requests with concurrent clients and return their outcomes."""
    outcomes: Counter = Counter()
    share = count // CONNECTIONS
    with tqdm(total=count, unit="request", leave=False, disable=None) as bar:
        clients = [send(server, share, seed, outcomes, bar) for seed in range(CONNECTIONS)]
        await asyncio.gather(*clients)
    return outcomes


async def send_bodies(server: Server, count: int, seed: int, outcomes: Counter, bar: tqdm) -> None:
    """Send mutated bodies in well-formed requests, pipelined."""
    rng = random.Random(f"{SEED} {seed}")
    for _ in range(0, count, PIPELINED):
        bodies = [mutate(rng, rng.choice(BODIES)) for _ in range(PIPELINED)]
        paths = [rng.choice(["/predict", "/predict_batch"]) for _ in bodies]
        requests = [request(path, body=body) for path, body in zip(paths, bodies, strict=True)]
        reader, writer, response = await send_pipelined(server, requests)
        if response is None:
            # If this process was paused for REQUEST_TIMEOUT before it could send, the server has
            # closed the connection. A request that the server drops gets no response again.
            await close(writer)
            reader, writer, response = await send_pipelined(server, requests)
        for n, (body, path) in enumerate(zip(bodies, paths, strict=True)):
            if n:
                response = await read_response(reader)
            outcomes[check_response(response, is_valid_body(body, path))] += 1
            bar.update()
            if closes_connection(response):
                break
        await close(writer)


async def send_pipelined(
    server: Server, requests: list[bytes]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Response | None]:
    """Send requests on a new connection; return its ends and the first response."""
    reader, writer = await connect(server)
    writer.write(b"".join(requests))
    return reader, writer, await read_response(reader)


async def send_raw_requests(
    server: Server, count: int, seed: int, outcomes: Counter, bar: tqdm
) -> None:
    """Send mutated requests, each on its own connection, and read every response to it."""
    rng = random.Random(f"{SEED} {seed}")
    for _ in range(count):
        raw = mutate(rng, rng.choice(REQUESTS)) or VALID_REQUEST
        reader, writer = await connect(server)
        writer.write(raw)
        responses = []
        with suppress(TimeoutError):
            async with asyncio.timeout(RESPONSE_TIMEOUT_SECONDS):
                while response := await read_response(reader):
                    responses.append(response)
        await close(writer)
        outcomes[find_errors(raw, responses) or responses[-1].status] += 1
        bar.update()


def find_errors(raw: bytes, responses: list[Response]) -> str:
    """Return a description of the errors in the responses to a raw request, empty if none.

    More predictions than valid requests are an error: the server saw a smuggled request.
    """
    if not responses:
        return f"no response to {raw[:300]!r}"
    outcomes = [check_response(response, True) for response in responses]
    errors = [outcome for outcome in outcomes if isinstance(outcome, str)]
    predictions = sum(b"x-model-tag" in response.headers for response in responses)
    if predictions > count_valid_requests(raw):
        errors.append(f"{predictions} predictions for {raw[:300]!r}")
    return "; ".join(errors)


def check_response(response: Response | None, valid: bool) -> int | str:
    """Return the status of a response to a valid or invalid body, or a description of its error."""
    if response is None:
        return "no response"
    if not response.is_well_formed():
        return f"malformed response {response}"
    if response.status >= 500 and response.status not in EXPECTED_STATUSES:
        return f"status {response.status}"
    if response.status == 200 and not valid:
        return "200 for invalid input"
    return response.status


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return data after 0 to 5 mutations, each of which changes, adds, deletes or repeats bytes."""
    mutated = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        start = rng.randrange(len(mutated) + 1)
        end = start + rng.choice([0, 1, 1, 3, 20])
        part = rng.choice([b"", rng.randbytes(1), mutated[start:end] * 2, rng.choice(DICTIONARY)])
        mutated[start:end] = part
    return bytes(mutated)
