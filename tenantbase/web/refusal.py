"""The answer to a connection that is refused, before or instead of a request."""

from __future__ import annotations

from tenantbase.request_context import RequestContext
from tenantbase.web.answer import rendered, rendered_fields
from tenantbase.web.naming import with_id
from tenantbase.web.problems import HttpError, error_answer
from tenantbase.web.responses import common_headers


def refusal(error: HttpError) -> bytes:
    """The bytes of an error answer with an id of its own, after which the connection is closed."""
    context = RequestContext()
    answer = error_answer(error, context)
    return with_id(rendered(answer, rendered_fields(common_headers(closes=True))), context)
