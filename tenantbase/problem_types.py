"""The types of problem that the HTTP API answers with (RFC 9457): stable, and meant for programs.

The server's table (``web/problems.py``) and the client both use these names.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

MEDIA_TYPE: Final = "application/problem+json"
_PREFIX: Final = "urn:tenantbase:problem:"


class ProblemType(StrEnum):
    """The last part of a type's URI."""

    INVALID_REQUEST = "invalid-request"
    CROSS_ORIGIN_WRITE = "cross-origin-write"
    NO_SUCH_KEY = "no-such-key"
    NO_SUCH_ROUTE = "no-such-route"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    REQUEST_TIMEOUT = "request-timeout"
    WRONG_TYPE = "wrong-type"
    CONDITION_FAILED = "condition-failed"
    TOO_LARGE = "too-large"
    URI_TOO_LONG = "uri-too-long"
    UNSUPPORTED_CONTENT_ENCODING = "unsupported-content-encoding"
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable"
    EXPECTATION_FAILED = "expectation-failed"
    MISDIRECTED_REQUEST = "misdirected-request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NO_SUCH_TENANT = "no-such-tenant"
    TENANT_REQUIRED = "tenant-required"
    QUOTA_EXCEEDED = "quota-exceeded"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    HEADER_TOO_LARGE = "header-too-large"
    INTERNAL_ERROR = "internal-error"
    UNSUPPORTED_TRANSFER_CODING = "unsupported-transfer-coding"
    OVER_LIMIT = "over-limit"
    STORE_UNAVAILABLE = "store-unavailable"
    OUTCOME_UNKNOWN = "outcome-unknown"
    DISK_FULL = "disk-full"

    @property
    def uri(self) -> str:
        """The ``type`` of a problem document."""
        return _PREFIX + self.value
