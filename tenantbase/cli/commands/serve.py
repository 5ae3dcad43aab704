"""``tenantbase serve``."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
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

    Prints one line, "listening on URL", once it accepts requests.
    """
    # Until the supervisor installs its own handlers. The server does not need its terminal.
    exit_on(0, signal.SIGTERM, signal.SIGINT)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from tenantbase.process import logs, supervisor
    from tenantbase.process.sockets import listening, url_of
    from tenantbase.process.tls import certificates_of
    from tenantbase.process.wiring import start_memcached
    from tenantbase.web.transport.descriptors import raise_descriptor_limit

    as_json = config.log_format == "json" or (config.log_format == "auto" and not os.isatty(2))
    logs.configure(config.log_level, as_json=as_json, keys=config.log_keys)
    raise_descriptor_limit()
    for line in config.ignored:
        log.warning("%s", line)
    certificates = certificates_of(config)
    with listening(config.host, config.port) as sockets, start_memcached(config) as memcached:
        url = url_of(config.host, sockets, "http" if certificates is None else "https")
        sys.exit(supervisor.run(config, sockets, memcached, lambda: _announce(url), certificates))


def _announce(url: str) -> None:
    with suppress(OSError):  # stdout's reader may have exited
        print(f"listening on {url}", flush=True)
