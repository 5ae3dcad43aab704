"""Mistakes in memcached's driver."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_PACKAGE: Final = "tenantbase/interfaces/"

MUTATIONS: Final = {
    **of(
        _PACKAGE + "memcached/ring.py",
        ["tests/interfaces/memcached/test_ring.py", "tests/coherence/test_ring.py"],
        {
            "the-first-server-has-everything": ("scores.index(max(scores))", "0"),
            "places-depend-on-the-order": (
                "blake2b(digits + address).digest() for address in self._addresses",
                "blake2b(digits + b'%d' % at).digest() for at in range(len(self._addresses))",
            ),
            "items-of-a-server-that-is-away-are-misses": (
                "        return [AWAY] * len(names)",
                "        return [type(AWAY).ABSENT] * len(names)",
            ),
            "an-open-breaker-is-asked": (
                "        if server.available:\n            try:\n                return",
                "        if True:\n            try:\n                return",
            ),
            "one-server-away-is-all-away": ("return any(server", "return all(server"),
            "failures-of-single-servers-are-not-counted": (
                "self._figures[CACHE_FAILURES[error.reason]] += 1",
                "pass",
            ),
            "servers-are-asked-one-after-the-other": (
                "        await asyncio.gather(*(ask(self._servers[at], part) for at, part in parts.items()))",
                "        for at, part in parts.items():\n            await ask(self._servers[at], part)",
            ),
            "cas-values-are-those-of-other-names": (
                "[known[each] for each in positions]",
                "known[: len(positions)]",
            ),
            "answers-are-those-of-other-names": (
                "zip(positions, found, strict=True)",
                "zip(range(len(found)), found, strict=True)",
            ),
        },
    ),
    **of(
        "tenantbase/process/wiring.py",
        ["tests/coherence/test_ring.py"],
        {
            "only-the-first-server-is-used": (
                "return MemcacheRing(servers, figures) if len(servers) > 1 else client",
                "return client",
            ),
        },
    ),
    **of(
        _PACKAGE + "memcached/client.py",
        ["tests/interfaces/memcached/test_breaker.py", "tests/interfaces/memcached/test_client.py"],
        {
            "the-deadline-begins-with-the-turn": (
                "async with asyncio.timeout(self._timeout), self._turns:",
                "async with self._turns, asyncio.timeout(self._timeout):",
            ),
            "the-pause-is-never-set-back": (
                "        self._pause = _FIRST_PAUSE_SECONDS\n        return answer",
                "        return answer",
            ),
            "the-pause-does-not-grow": (
                "min(self._pause * 2, _LONGEST_PAUSE_SECONDS)",
                "self._pause",
            ),
            "the-pause-grows-without-bound": (
                "min(self._pause * 2, _LONGEST_PAUSE_SECONDS)",
                "self._pause * 2",
            ),
            "a-slow-answer-opens-the-breaker": (
                "if silence > self._timeout / 2:",
                "if True:",
            ),
            "silence-does-not-open-the-breaker": (
                "if silence > self._timeout / 2:",
                "if False:",
            ),
            "a-dead-idle-connection-is-a-failure": (
                "                    self._pool.drop_idle()\n"
                "                    answer = await self._exchange(command)",
                "                    raise",
            ),
            "only-one-dead-idle-connection-is-dropped": (
                "                    self._pool.drop_idle()\n",
                "",
            ),
            "an-answer-left-unread-stays-with-its-connection": (
                "            self._pool.discard(conn)\n            raise",
                "            self._pool.release(conn)\n            raise",
            ),
            "cancelled-calls-leak-connections": (
                "        except BaseException:\n            # Even",
                "        except Exception:\n            # Cancellation",
            ),
            "the-probe-has-no-deadline": (
                "                async with asyncio.timeout(self._timeout):\n"
                "                    await self._exchange(lambda",
                "                async with asyncio.timeout(3600):\n"
                "                    await self._exchange(lambda",
            ),
            "closing-leaves-the-probe": (
                "            self._probe.cancel()\n",
                "",
            ),
            "out-of-step-connections-are-used": (
                "cast(PieceReader, conn.reader).in_step and not",
                "not",
            ),
            "closing-lets-a-connection-through": (
                "if self.closed:",
                "if False:",
            ),
            "the-breaker-leaves-connections-in-use": (
                "        for conn in self._in_use:\n            _abort(conn)\n",
                "",
            ),
        },
    ),
    **of(
        _PACKAGE + "memcached/protocol.py",
        ["tests/interfaces/memcached/test_protocol.py"],
        {
            "an-answer-may-fill-the-memory": ("if length > LONGEST_ANSWER_BYTES:", "if False:"),
            "a-changed-item-passes-for-the-known-one": ("if answer != cas:", "if False:"),
            "an-item-is-asked-for-until-its-bytes-come": (
                "        if cas is None:\n            raise",
                "        if False:\n            raise",
            ),
            "all-known-items-pass-for-unchanged": ("if begun == unchanged:", "if True:"),
            "what-is-left-out-is-kept": (
                "if position < kept else LEFT_OUT",
                "if True else LEFT_OUT",
            ),
            "an-item-without-its-end": (
                'if not data.startswith(b"\\r\\n", end):',
                "if False:",
            ),
            "any-server-is-alive": ("if answer != _ALIVE:", "if not answer:"),
            "an-old-memcached-is-like-any-other": (
                "if data.startswith(_UNKNOWN_COMMAND, position):",
                "if False:",
            ),
            "slices-are-not-cut-by-size": ("size >= _SLICE_BYTES or ", ""),
            "slices-are-not-cut-by-number": (" or count >= _COMMANDS_PER_SLICE", ""),
            "no-memory-is-a-failure": (
                '        b"SERVER_ERROR out of memory storing object",\n',
                "",
            ),
            "too-large-is-a-failure": (
                '        b"SERVER_ERROR object too large for cache",\n',
                "",
            ),
            "more-answers-to-set-than-sets": ("if waiting < 0 or len(unread)", "if len(unread)"),
            "an-endless-line-answers-a-set": (
                "len(unread) > (_LONGEST_LINE_BYTES if waiting else 0)",
                "(unread and not waiting)",
            ),
            "an-endless-line-answers-version": (
                " and len(answer) < _LONGEST_LINE_BYTES:\n        answer",
                ":\n        answer",
            ),
            "a-key-of-another-length": (
                "        len(joined) != len(names) * (_NAME_BYTES + 1) - 1\n        or ",
                "        ",
            ),
            "a-key-with-a-space": ('        or joined.count(b" ") != spaces\n', ""),
            "keys-of-other-lengths-that-add-up": (
                '        or joined[_NAME_BYTES :: _NAME_BYTES + 1] != b" " * spaces\n',
                "",
            ),
            "a-key-with-capitals": (
                '_NAME_ALPHABET = b"0123456789abcdef"',
                '_NAME_ALPHABET = b"0123456789abcdefABCDEF"',
            ),
            "rubbish-after-an-item": ("    if position < len(data):\n", "    if False:\n"),
            "the-end-of-the-stream-is-read-for-ever": (
                "    if not data:\n        raise EOF",
                "    if False:\n        raise EOF",
            ),
            "the-log-sees-whole-values": ("_EXCERPT_BYTES = 40", "_EXCERPT_BYTES = 4000"),
        },
    ),
    **of(
        _PACKAGE + "memcached/reader.py",
        ["tests/interfaces/memcached/test_reader.py"],
        {
            "a-reader-wakes-up-late": (
                "            self._pieces.append(bytes(data))\n            self._wake()",
                "            self._pieces.append(bytes(data))",
            ),
            "the-end-wakes-no-waiter": (
                "        super().feed_eof()\n        self._wake()",
                "        super().feed_eof()",
            ),
            "an-error-wakes-no-waiter": (
                "        super().set_exception(exc)\n        self._wake()",
                "        super().set_exception(exc)",
            ),
            "left-over-bytes-are-in-step": (
                "not (self._pieces or self.at_eof()",
                "not (self.at_eof()",
            ),
            "the-end-is-in-step": ("self._pieces or self.at_eof() or", "self._pieces or"),
            "waking-who-has-given-up": (" and not self._arrival.done()", ""),
        },
    ),
    **of(
        _PACKAGE + "memcached/address.py",
        ["tests/interfaces/memcached/test_address.py"],
        {
            "port-zero": ("0 < int(port)", "0 <= int(port)"),
            "a-port-too-many": ("int(port) < 65536", "int(port) < 65537"),
            "a-path-too-long": (
                "len(os.fsencode(path)) > LONGEST_PATH",
                "len(path) > LONGEST_PATH",
            ),
            "a-path-too-long-by-one": (
                "len(os.fsencode(path)) > LONGEST_PATH",
                "len(os.fsencode(path)) > LONGEST_PATH + 1",
            ),
            "an-empty-path": ('if not path or "\\0" in path', 'if "\\0" in path'),
            "a-path-with-a-zero": ('not path or "\\0" in path or', "not path or"),
            "shown-without-brackets": ('if ":" in self.host else', "if False else"),
            "a-host-too-long": ("len(host) > 253", "len(host) > 999"),
        },
    ),
}
