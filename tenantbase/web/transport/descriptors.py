"""The limit of open files of this process."""

from __future__ import annotations

import logging

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

log = logging.getLogger("tenantbase")


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files to the hard limit. Child processes inherit it.

    Soft limits are low (often 1,024) for programs that use ``select``, which cannot handle higher
    descriptors. This program does not use it.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # the kernel of macOS rejects "unlimited"
        log.info("the limit of open files stays at %d: %s", soft, error)


def descriptor_limit() -> int | None:
    """How many files may be open at a time; None: unlimited."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
