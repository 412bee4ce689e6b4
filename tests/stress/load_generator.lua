-- wrk script: post the body read from standard input, and print a `LoadResult` as one line of JSON.
-- With the argument "honour", a connection that is rejected waits for a second, as `Retry-After` says.
local threads = {}

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function setup(thread)
  thread:set("body", body)
  table.insert(threads, thread)
end

-- wrk calls this before each request, without saying which connection sends it. So another connection
-- than the rejected one may wait, but there are as many waits as rejections.
local function wait()
  if waits == 0 then return 0 end
  waits = waits - 1
  return 1000
end

function init(args)
  succeeded, rejected, unexpected, waits = 0, 0, 0, 0
  if args[1] == "honour" then delay = wait end
  request_text = wrk.format(nil, nil, nil, body)
end

function request()
  return request_text
end

function response(status)
  if status == 200 then
    succeeded = succeeded + 1
  elseif status == 429 or status == 503 then
    rejected = rejected + 1
    waits = waits + 1
  else
    unexpected = unexpected + 1
  end
end

function done(summary, latency)
  local thread, e = threads[1], summary.errors
  io.write(string.format(
    '{"seconds": %f, "succeeded": %d, "rejected": %d, "unexpected": %d, "connection_errors": %d, ' ..
    '"p50_ms": %f, "p99_ms": %f}\n',
    summary.duration / 1e6,
    thread:get("succeeded"), thread:get("rejected"), thread:get("unexpected"),
    e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end

body = body or io.read("*a")
