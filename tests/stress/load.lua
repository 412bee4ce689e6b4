-- Posts the body from standard input, and prints what became of it as one line of JSON.
local threads = {}

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function setup(thread)
  thread:set("body", body)
  table.insert(threads, thread)
end

function init(args)
  good, refused, other = 0, 0, 0
  request_text = wrk.format(nil, nil, nil, body)
end

function request()
  return request_text
end

function response(status)
  if status == 200 then
    good = good + 1
  elseif status == 429 or status == 503 then
    refused = refused + 1
  else
    other = other + 1
  end
end

function done(summary, latency)
  local thread, e = threads[1], summary.errors
  io.write(string.format(
    '{"seconds": %f, "good": %d, "refused": %d, "other": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.duration / 1e6, thread:get("good"), thread:get("refused"), thread:get("other"),
    e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end

body = body or io.read("*a")
