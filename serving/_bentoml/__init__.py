"""Overrides of parts of BentoML, uvicorn, circus and the Prometheus client.

No other package of the service or of training may import uvicorn, circus, BentoML's internal
modules, or `values` and `mmap_dict` of prometheus_client (`make lint`), so that a change of these
can break only this package.

tests/unit/_bentoml and tests/live fail if an upgrade breaks an override. Two tests of
test_tabular_service.py also fail once a change of BentoML makes their override superfluous: that of
the page at `/`, and that of the look-up of models.

Each override below replaces what its first line says; options of the libraries that the code merely
sets are not listed. "CPU 1.17, 1.10" means that without the override a worker needs 1.17 times the
CPU time per request at 64 connections, and 1.10 times at one (benchmarks/README.md).

In a worker

BentoML's middleware for metrics, access log, timeout and concurrency, and its API handler
    by: worker.py, `serving.http.app.ServiceApp`
    why: CPU 8.90, 6.84, since each request gets OpenTelemetry spans and the signature of its API is
        inspected; errors had several formats; each unknown path added 20 time series
    until: BentoML creates no spans without an exporter, and inspects an API's signature once
BentoML's placement of middleware, such as for CORS
    by: worker.py, `add_outer_middleware`
    why: it would be behind `ServiceApp`, so that prediction requests would bypass it
    until: this service uses BentoML's API handler again
The plain-text errors of such middleware
    by: worker.py, `serving.http.json_errors.JSONErrorMiddleware`
    why: errors had several formats
    until: the middleware can send JSON
BentoML's page at `/`
    by: worker.py, `serving.http.docs_page.DocsViews`
    why: it loads Google Tag Manager
    until: it does not
BentoML's OpenAPI document
    by: tabular_service.py, `TabularService.openapi_spec`
    why: it describes errors that are never sent
    until: a Service can describe its own errors
BentoML's look-up of a Bento's model (also in the supervisor)
    by: tabular_service.py, `TabularService.on_load_bento`
    why: it pins only models from Hugging Face; service.py, which each start runs again, pins the
        newest model of the store
    until: it pins each `BentoModel`
BentoML's queue, for a single row of a fast model while its API has no other request
    by: batching.py, `Batcher.predict`
    why: CPU 1.14, 1.46
    until: BentoML's dispatcher runs such a row at once
BentoML's thread for a batch that is a single row of a fast model
    by: batching.py, `Batcher.process_batch`
    why: CPU 0.99, 1.60, for the switch to the thread and back
    until: BentoML can choose thread or event loop for each batch, as it does for each API method
The statistics of BentoML's dispatcher
    by: batching.py, `MeasuringOptimizer`
    why: the time in the queue is not published
    until: BentoML has a metric of it
uvicorn's HTTP protocol
    by: connection.py, `Connection`
    why: it has no limits on the time and size of a head, on pipelining and on slow readers; its
        errors are plain text; it has no lingering close; it discards the body of a request with
        `Upgrade: h2c`, which Java's HttpClient sends
    upstream: uvicorn issue 157, pull request 1684
    until: uvicorn has these limits for httptools
uvicorn's writing of responses
    by: response_cycle.py, `ResponseCycle`
    why: CPU 1.17, 1.10; it sends head and body separately, and checks headers by regular
        expressions
    until: uvicorn sends them together
uvicorn's middleware for the headers of a proxy, in front of each request
    by: worker.py, `read_proxy_headers`
    why: it takes 3 us of each prediction, which does not use these headers
    until: it takes no time for requests without them
uvicorn's time limits, which BentoML takes only from its command line
    by: server.py, `Server.__init__`
    why: the command line of an image is fixed
    until: BentoML's configuration has them
uvicorn's acceptance of any number of connections
    by: server.py, `Server.register`
    why: a worker without free file descriptors accepts no client, however many of its connections
        are idle
    until: uvicorn closes idle connections at a limit
uvicorn's shutdown
    by: server.py, `Server.shutdown`
    why: on SIGTERM it even closes connections on which it has just responded, and loses the next
        requests of the clients
    upstream: uvicorn issue 2757
    until: uvicorn drains them
uvicorn's tick
    by: server.py, `Server.on_tick`
    why: a worker whose supervisor was killed would hold the port
    until: BentoML's worker ends by itself
uvicorn's single listener, if there is one worker
    by: server.py, `Server.serve`
    why: uvloop accepts one connection per listener and turn of the event loop: clients with a new
        connection for each request got three quarters of the rate
    upstream: libuv pull request 3696
    until: libuv accepts several
The Prometheus client's sparse files
    by: metrics_files.py, `PreallocatedFile`
    why: on a full disk they end the process with SIGBUS
    until: the client allocates disk space
The Prometheus client's write at each increment
    by: metrics_files.py, `buffered`
    why: CPU 1.25, 1.03
    until: the client buffers increments
The Prometheus client's observation of one value at a time
    by: prediction_histogram.py, `PredictionHistogram.observe_all`
    why: an array of 1000 records would take 1000 calls
    until: the client can observe several values

In the supervisor

circus' handling of signals
    by: supervisor.py, `SignalHandler`
    why: a dead worker is replaced only after up to 10 s, and never in a container; workers that
        cannot start are started forever; shutdown resets connections that no worker has accepted;
        a signal while workers are started, and a second signal, are ignored
    until: BentoML does this
circus' binding of the port
    by: supervisor.py, `bind`
    why: if the port is in use, it logs the address, and then a traceback instead of what to do
    until: BentoML reports it
BentoML's metrics folder
    by: metrics_folder.py
    why: all runs of `bentoml serve` in a BENTOML_HOME share it, and each empties it at its start
    upstream: BentoML pull request 2526
    until: each run has its own
BentoML's silence about options without effect
    by: ignored_options.py
    why: `--api-workers`, `--timeout`, `services.traffic` and most of `services.logging.access` have
        no effect on `ServiceApp`
    until: this service uses BentoML's middleware again

In `bentoml build`

BentoML's description of the image
    by: container_image.py, `ServiceImage.freeze`
    why: BentoML does not check that the Bento has each file that service.py, the model and /try
        need; `freeze` is the only hook that it calls with the folder of the included files
    until: BentoML checks them
"""
