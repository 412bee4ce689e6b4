-- wrk script with the arguments FILE [close]: post the bodies of a file, one per line, in turn, and
-- print the figures of wrk as one line of JSON. With "close", open a new connection for each request.
local requests, next = {}, 0

function init(args)
  local headers = { ["Content-Type"] = "application/json", ["Connection"] = args[2] }
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  next = next % #requests + 1
  return requests[next]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
