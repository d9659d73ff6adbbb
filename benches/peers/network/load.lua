-- The same load for everybody: METHOD PATH KEY BODY, where %d in the path is one of 1,000 ids and in the body a number
-- that grows. It says as JSON what happened.

local method, path, body
local headers = {}
local sent = 0

function init(args)
  method, path, body = args[1], args[2], args[4]
  if args[3] ~= "" then headers["authorization"] = "Bearer " .. args[3] end
  if body ~= "" then headers["content-type"] = "application/json" end
end

function request()
  sent = sent + 1
  -- 7919 and 1,000 have no divisor in common, so that every id has its turn.
  local id = string.format(path, (sent * 7919) % 1000)
  if body == "" then return wrk.format(method, id, headers) end
  return wrk.format(method, id, headers, string.format(body, sent))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
