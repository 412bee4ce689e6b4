"""All imports of unpublished modules of BentoML, uvicorn, circus and prometheus_client.

No other package may import them (`make lint`), so that an upgrade can break only this package.
tests/unit/_bentoml/test_tabular_service.py fails if an upgrade removes what an override relies on,
or makes an override superfluous.

Each override below replaces what its first line says. "CPU" is the CPU time of a worker per request
without the override, as a multiple of the time with it, at 64 and at 1 connection
(benchmarks/README.md).

In a worker

BentoML's middleware for metrics, access log, timeout and concurrency, and its API handler
    by: worker.py, `serving.http.app.ServiceApp`
    why: CPU 9.51, 7.36; errors had several formats; each unknown path added 20 time series
    until: BentoML creates no spans without an exporter, and inspects an API's signature once
BentoML's page at `/`
    by: worker.py, `serving.http.docs_page.DocsViews`
    why: it loads Google Tag Manager
    until: it does not
BentoML's OpenAPI document
    by: tabular_service.py, `TabularService.openapi_spec`
    why: it describes errors that are never sent
    until: a Service can describe its own errors
BentoML's look-up of a Bento's model
    by: tabular_service.py, `TabularService.on_load_bento`
    why: it pins only models from a hub, and looks up others by their tag, such as `latest`
    until: it pins each `BentoModel`
The queue, for a request that is the only one
    by: batching.py, `Batcher.predict`
    why: CPU 1.08, 1.31 with the queue; 1.10, 1.65 if a single row runs in a thread
    until: BentoML's dispatcher runs such a request at once
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
    why: CPU 1.14, 1.29; it sends head and body separately, and checks headers by regular
        expressions
    until: uvicorn sends them together
uvicorn's time limits, which BentoML takes only from its command line
    by: server.py, `Server.__init__`
    why: the command line of an image is fixed
    until: BentoML's configuration has them
uvicorn's acceptance of any number of connections
    by: server.py, `Server.register`
    why: a worker without free file descriptors accepts no client, however idle the others are
    until: uvicorn closes idle connections at a limit
uvicorn's shutdown
    by: server.py, `Server.shutdown`
    why: it closes idle connections at SIGTERM, and loses requests that clients are about to send
    upstream: uvicorn issue 2757
    until: uvicorn drains them
uvicorn's tick
    by: server.py, `Server.on_tick`
    why: a worker whose supervisor was killed would hold the port
    until: BentoML's worker ends by itself
uvicorn's single listener
    by: server.py, `Server.serve`
    why: uvloop accepts one connection per listener and turn of the event loop: clients with a new
        connection for each request got a fourth of the rate
    upstream: libuv pull request 3696
    until: libuv accepts several
The Prometheus client's sparse files
    by: metrics_files.py, `PreallocatedFile`
    why: on a full disk they end the process with SIGBUS
    until: the client allocates disk space
The Prometheus client's write at each increment
    by: metrics_files.py, `buffered`
    why: CPU 1.33, 1.19
    until: the client buffers increments
The Prometheus client's observation of one value at a time
    by: prediction_histogram.py, `PredictionHistogram.observe_all`
    why: an array of 1000 records would take 1000 calls
    until: the client can observe several values

In the supervisor

circus' handling of signals
    by: supervisor.py, `SignalHandler`
    why: a dead worker is replaced only after up to 10 s, and never in a container; shutdown resets
        connections that no worker has accepted; workers that cannot start are started forever
    until: BentoML does this
circus' binding of the port
    by: supervisor.py, `bind`
    why: a traceback, without the port, if the port is in use
    until: BentoML reports it
BentoML's metrics folder
    by: metrics_folder.py
    why: all servers of a BENTOML_HOME share it, and each empties it when it starts
    upstream: BentoML pull request 2526
    until: each server has its own
BentoML's missing warning about options that have no effect on `ServiceApp`
    by: ignored_options.py
    why: `--timeout` and `services.traffic` have no effect on this service
    until: BentoML's middleware is used again

In `bentoml build`

BentoML's description of the image
    by: container_image.py, `ServiceImage.freeze`
    why: it does not check that the Bento has each Python file that service.py or the model imports;
        of what BentoML calls, only `freeze` gets the folder with the files that `include` names
    until: BentoML checks them
"""
