"""Environment variables that are not options: others with our prefix, and OpenTelemetry's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from tenantbase.process.options import PREFIX

# Kubernetes sets these in every pod for each service of the namespace, and Docker for each link: if
# the service is called tenantbase, they all have our prefix.
_INJECTED: Final = re.compile(
    r"(?:\w{1,128}_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w{1,128})?|PORT|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w{1,128})?|NAME|ENV_\w{1,128})"
)
_INJECTED_ADDRESS: Final = re.compile(r"(?:tcp|udp|sctp)://\S*")
INJECTOR: Final = "Kubernetes and Docker set it for a service of this name"


def is_injected_address(variable: str, text: str) -> bool:
    """Whether an option's variable holds the address of a service instead of a value."""
    return variable.endswith("_PORT") and _INJECTED_ADDRESS.fullmatch(text) is not None


def wants_traces(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for traces: they name an exporter or its endpoint."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if exporter:
        return "otlp" in exporter.split(",")
    return any(
        environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT")
    )


def unknown_variables(variables: Iterable[str], known: Collection[str]) -> list[str]:
    """For each variable that has our prefix but is not an option, a line saying it is ignored.

    Args:
        known: the variables that are options.
    """
    names = [each.removeprefix(PREFIX) for each in known]
    lines = []
    injected = []
    for variable in sorted(variables):
        if not variable.startswith(PREFIX) or variable in known:
            continue
        if _INJECTED.fullmatch(variable.removeprefix(PREFIX)):
            injected.append(variable)
            continue
        # Without the prefix, with which all are alike.
        near = get_close_matches(variable.removeprefix(PREFIX).upper(), names, 1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        lines.append(f"{variable} is ignored: there is no such variable{hint}")
    if injected:
        lines.append(f"{', '.join(injected)}: ignored: {INJECTOR}")
    return lines
