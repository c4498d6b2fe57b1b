-- SPDX-License-Identifier: Apache-2.0
-- What wrk sends to examples/cpp/inference_server: KEYS different keys of each connection's thread (0: a new one for
-- each request), of TENANTS tenants in turn. In the end a line of JSON: how often each status was answered.
local keys = tonumber(os.getenv("KEYS"))
local tenants = tonumber(os.getenv("TENANTS"))
local number = 0
threads = {}

function setup(thread)
  thread:set("id", #threads)
  table.insert(threads, thread)
end

function init()
  statuses = ""
  counts = {}
end

function request()
  number = number + 1
  local key = id .. "-" .. (keys > 0 and number % keys or number)
  return wrk.format("POST", "/v1/generate?max_tokens=4",
    {["X-Tenant"] = "t" .. number % tenants, ["Idempotency-Key"] = key}, "one two three")
end

function response(status)
  counts[status] = (counts[status] or 0) + 1
end

function done(summary, latency)
  local all = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do all[status] = (all[status] or 0) + count end
  end
  local parts = {}
  for status, count in pairs(all) do table.insert(parts, string.format('"%d": %d', status, count)) end
  local errors = summary.errors
  io.write(string.format('{"statuses": {%s}, "seconds": %f, "requests": %d, "broken": %d, "p50_ms": %f, "p99_ms": %f}\n',
    table.concat(parts, ", "), summary.duration / 1e6, summary.requests,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
