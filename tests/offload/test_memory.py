"""The child process needs little more memory than the body has bytes."""

from __future__ import annotations

import asyncio
import pickle
import sys
import tempfile
from base64 import b64encode

import pytest

from tenantbase.offload import runner
from tenantbase.offload.child import Answer, Job

pytestmark = pytest.mark.integration  # the package starts processes

BYTES = 24 << 20
OVERHEAD_BYTES = 26 << 20  # the interpreter with its modules, and pieces
PEAK = (
    "\nfor line in open('/proc/self/status'):\n    'VmHWM' in line and print(line, file=sys.stderr)"
)

ASCII = b'"%b"' % (b"x" * BYTES)
ENTRY = b'{"key":"k","value":%b}' % ASCII
BODIES = {
    "a value": (Job.VALUE, ASCII),
    "a value with one wide character": (Job.VALUE, ASCII[:-5] + "😀".encode() + b'"'),
    "a value with escapes and brackets": (Job.VALUE, b"[%b0]" % (rb'["\"\\"],' * (BYTES // 9))),
    "set-value": (Job.ENTRY, ENTRY),
    "set-value with other fields": (
        Job.ENTRY,
        ENTRY[:-1] + b',"content_type":"a/b+json","ttl":1}',
    ),
    "set-value with a list and other fields": (
        Job.ENTRY,
        b'{"key":"k","value":[%b],"content_type":"a/b+json","ttl":1}' % ASCII,
    ),
    "base64": (
        Job.ENTRY,
        b'{"key":"k","encoding":"base64","value":"%b"}' % b64encode(bytes(BYTES * 3 // 4)),
    ),
    "set-values": (
        Job.ENTRIES,
        b'{"values":[{"key":"k","value":%b,"ttl":1,"content_type":"a/b+json"}]}' % ASCII,
    ),
}


@pytest.mark.parametrize("body", BODIES)
async def test_a_large_body_is_in_memory_once(body: str) -> None:
    job, text = BODIES[body]
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            runner._PROGRAM + PEAK,
            *(job.value, "60", "10", "--", *sys.path),
            stdin=file,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, peak = await child.communicate()
    answer = pickle.loads(told)
    assert isinstance(answer, Answer) and answer.refused is None
    assert [type(size) for _, size in answer.entries] == [int]
    print("PEAK", body, ((int(peak.split()[1]) << 10) - len(text)) >> 20)
    assert int(peak.split()[1]) << 10 < len(text) + OVERHEAD_BYTES
