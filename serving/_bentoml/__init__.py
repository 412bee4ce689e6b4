"""Everything that depends on unpublished parts of BentoML, uvicorn, circus or prometheus_client.

No other package may import those (`make lint`), so an upgrade can break only this one. Each
override below says what it replaces, why, and when it can go. tests/unit/_bentoml/test_service.py
fails if an upgrade takes away what an override relies on, or makes it superfluous.

service.py, worker.py
  HTTP layers. Replaces BentoML's metrics, access-log, timeout and concurrency middleware and its
    API handler by `serving.http.app`. With them the service answered 0.15 of the requests at 64
    connections (benchmarks/README.md); errors had several shapes, and each unknown path added
    twenty time series. Goes when BentoML skips spans without an exporter and inspects an API's
    signature once.
  `on_load_bento`. A Bento serves the model that it was built with; BentoML looks up `latest` again
    (only models from a hub are pinned). Goes when `BentoModel` is pinned, too.
  `openapi_spec`, index page. BentoML's document describes errors of another shape; its page loads
    Google Tag Manager.
container_image.py
  `ServiceImage.freeze`. Fails the build if the Bento lacks a Python file that service.py or the
    model imports: the image could not start. Of what BentoML calls while it builds, only `freeze`
    gets the folder with the files that `include` names. Goes when BentoML checks them.
batching.py
  `MeasuringOptimizer`. Observes the wait in the queue. Goes when BentoML publishes it.
  Inline prediction. A single request bypasses the queue: without it a lone client's requests took
    1.3 times, and in a thread 1.65 times, as much CPU time (benchmarks/README.md).
connection.py
  Limits on the time and the size of a request's head, on pipelining and on slow readers; one shape
    of errors; lingering close; `Upgrade: h2c` (Java's HttpClient sends it) is ignored. uvicorn has
    no such limits for httptools (uvicorn issue 157, pull request 1684). Goes when it has.
  `ResponseCycle`. Sends a JSON response in one system call instead of two, and without uvicorn's
    regular expressions on each header.
server.py
  Settings for keep-alive and shutdown, which BentoML has on its command line only.
  Drain. uvicorn closes idle connections at SIGTERM and loses the requests that clients are about to
    send (uvicorn issue 2757). Goes when uvicorn drains them.
  `on_tick`. A worker whose supervisor was killed ends; it would hold the port. Goes when BentoML's
    worker ends by itself.
  Several listeners. uvloop accepts one connection per listener and turn (libuv pull request 3696):
    clients with a connection for each request got half as many responses.
supervisor.py
  `SignalHandler`. Replaces circus' handler: a dead worker is replaced at once and in a container,
    too; shutdown resets no connection; a service whose workers cannot start ends.
  `bind`. A port in use is reported in a sentence.
ignored_options.py
  Reads BentoML's default configuration and command line: what has no effect is warned of.
  Metrics folder. BentoML has one for all servers of a BENTOML_HOME, and each empties it at its
    start (BentoML pull request 2526). Goes when it has one per server.
metrics_files.py
  `PreallocatedFile`. On a full disk the Prometheus client's sparse files end the process with
    SIGBUS.
  `buffered`. Values are written five times a second instead of at each count.
prediction_histogram.py
  `observe_all`. 1000 values in 0.2 ms instead of 4 ms.
"""
