-- Repeats the requests of a file, byte for byte. In the file, a line with its length precedes each
-- request. At the end it writes one line of JSON.

local requests, count, last = {}, 0, 0

function init(arguments)
    local file = assert(io.open(arguments[1], "rb"))
    for length in function() return file:read("*l") end do
        count = count + 1
        requests[count] = file:read(tonumber(length))
    end
    file:close()
end

function request()
    last = last % count + 1
    return requests[last]
end

function done(summary)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"answers": %d, "microseconds": %d, "bytes": %d, "refused": %d, "broken": %d}\n',
        summary.requests, summary.duration, summary.bytes, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout
    ))
end
