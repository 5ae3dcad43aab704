"""How many requests a tenant may make: a token bucket in memory that all workers share."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
import weakref
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import Final

from tenantbase.figures import RATE_LIMITED, private_cells

_SLOTS: Final = 16_384  # tenants with a limit that are busy at the same time
_PROBED: Final = 16  # slots that a tenant may have
_SLOT: Final = struct.Struct("=16sdd")  # digest of its name; requests left; when that was true
_SLOT_BYTES: Final = (
    64  # a cache line: workers that count different tenants do not disturb each other
)
_SHARE: Final = 100  # a worker takes at most 1/100 of a second's requests at a time
_LEASE_SECONDS: Final = 0.02  # after which it gives back what it has not used


class Rates:
    """The buckets of all tenants. Made before the workers are forked, and inherited by them.

    Args:
        clock: seconds on a clock that all workers share.

    Attributes:
        figures: the worker's cells, for the number of refusals.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.figures = private_cells()
        # A lock on a part of the file goes with its process, however that ends. The file has no name.
        with TemporaryFile() as file:
            file.truncate(_SLOTS * _SLOT_BYTES)
            self._map = mmap.mmap(file.fileno(), _SLOTS * _SLOT_BYTES)
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._buckets: dict[tuple[str, int], Bucket] = {}

    def bucket(self, tenant: str, rate: int) -> Bucket:
        """The bucket of a tenant that may make ``rate`` requests per second."""
        bucket = self._buckets.get((tenant, rate))
        if bucket is None:
            if len(self._buckets) >= _SLOTS:
                self._buckets.clear()
            bucket = self._buckets[tenant, rate] = Bucket(self, tenant, rate)
        return bucket

    def exchange(self, name: bytes, rate: int, returned: int, wanted: int) -> tuple[int, float]:
        """Give requests back to a tenant's bucket, and take others out of it.

        Args:
            name: the digest of the tenant's name.

        Returns: how many were taken, at most ``wanted``; and, for none, the seconds until there is
            one.
        """
        first = int.from_bytes(name[:4], "little") % (_SLOTS - _PROBED) * _SLOT_BYTES
        size = _PROBED * _SLOT_BYTES
        # A few microseconds; no worker waits for anything while it has the lock.
        fcntl.lockf(self._file, fcntl.LOCK_EX, size, first)
        try:
            now = self.clock()
            at, left = self._find(name, first, rate, now)
            left = min(left + returned, rate)
            taken = min(int(left), wanted)
            _SLOT.pack_into(self._map, at, name, left - taken, now)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, size, first)
        return taken, 0.0 if taken else (1 - left) / rate

    def _find(self, name: bytes, first: int, rate: int, now: float) -> tuple[int, float]:
        """The tenant's slot and the requests left there now; otherwise the one unused for longest."""
        oldest, at = now, first
        for place in range(first, first + _PROBED * _SLOT_BYTES, _SLOT_BYTES):
            owner, left, moment = _SLOT.unpack_from(self._map, place)
            if owner == name:
                return place, min(left + (now - moment) * rate, rate)
            if moment < oldest:
                oldest, at = moment, place
        return at, float(rate)  # a bucket that has not been used is full


class Bucket:
    """A worker's view of a tenant's bucket: it takes several requests out of it at a time.

    So a busy worker does not take a lock for each request, and all of them together still admit no
    more than the rate, give or take what each has taken in advance.
    """

    __slots__ = ("rate", "_rates", "_name", "_lease", "_left", "_until")

    def __init__(self, rates: Rates, tenant: str, rate: int) -> None:
        self.rate: Final = rate
        self._rates = rates
        self._name = hashlib.blake2b(tenant.encode(), digest_size=16).digest()
        self._lease = max(1, rate // _SHARE)
        self._left = 0
        self._until = 0.0

    def take(self) -> float:
        """Count a request. Returns: 0 if it is admitted, otherwise in how many seconds one will be."""
        now = self._rates.clock()
        if not self._left or now >= self._until:
            returned, self._left = self._left, 0
            self._left, wait = self._rates.exchange(self._name, self.rate, returned, self._lease)
            self._until = now + _LEASE_SECONDS
            if not self._left:
                self._rates.figures[RATE_LIMITED] += 1
                return wait
        self._left -= 1
        return 0.0

    def give_back(self) -> None:
        """A request was counted that is going to be counted again."""
        self._left += 1
