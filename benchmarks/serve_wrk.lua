-- Script for wrk: posts the bodies of a file, one a line, in their order, again and again.
-- Arguments: the file, and the line to begin with, from 0 (wrk makes one request that it does not
-- send, so that the next line is the first).
-- Prints one line of JSON after wrk's own.

local requests = {}
local position

function init(arguments)
  for body in io.lines(arguments[1]) do
    requests[#requests + 1] =
      wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
  end
  position = tonumber(arguments[2]) % #requests
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "refused": %d, "lost": %d, "p50_ms": %.6f, "p99_ms": %.6f}\n',
    summary.requests, summary.duration / 1e6, errors.status, lost,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
