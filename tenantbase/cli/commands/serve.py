"""``tenantbase serve``."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from tenantbase.cli.options import command
from tenantbase.process.config import OPTIONS, Config
from tenantbase.process.startup import exit_on

log = logging.getLogger("tenantbase")

_OF_CLIENTS: Final = ("url", "tls_ca", "token", "token_file", "tenant")
_OPTIONS: Final = tuple(option.name for option in OPTIONS if option.name not in _OF_CLIENTS)


@command("serve", *_OPTIONS)
def serve(config: Config) -> None:
    """Serve over HTTP until SIGTERM or SIGINT, then finish the requests in flight.

    Prints a line, "listening on URL", for each address once it accepts requests.
    """
    # Until the supervisor installs its own handlers. The server does not need its terminal.
    exit_on(0, signal.SIGTERM, signal.SIGINT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from tenantbase.process import logs, supervisor
    from tenantbase.process.listening import listening
    from tenantbase.process.tls import certificates_of
    from tenantbase.process.wiring import start_memcached
    from tenantbase.web.transport.descriptors import raise_descriptor_limit

    as_json = config.log_format == "json" or (config.log_format == "auto" and not os.isatty(2))
    logs.configure(config.log_level, as_json=as_json, keys=config.log_keys)
    raise_descriptor_limit()
    for line in config.ignored:
        log.warning("%s", line)
    certificates = certificates_of(config)
    with listening(config) as opened, start_memcached(config) as memcached:
        announce = partial(_announce, opened.announced)
        sys.exit(supervisor.run(config, opened, memcached, announce, certificates))


def _announce(addresses: Sequence[str]) -> None:
    with suppress(OSError):  # stdout's reader may have exited
        for each in addresses:
            print(f"listening on {each}", flush=True)
