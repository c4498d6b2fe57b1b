# SPDX-License-Identifier: Apache-2.0
"""What the JSON body of an error says about it, in the form that OpenAI, Anthropic and those who copy them
use: {"error": {"type": ..., "code": ..., "message": ...}}."""

from __future__ import annotations

import json
from typing import Any, Optional

from ..enums import ErrorClass

#: The most of a body that is read before the decision.
ERROR_BODY_BYTES = 65_536

_PERMANENT = (
    "account_deactivated",
    "authentication_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "insufficient_quota",
    "invalid_api_key",
    "invalid_image",
    "invalid_organization",
    "invalid_prompt",
    "invalid_request_error",
    "model_not_found",
    "not_found_error",
    "permission_denied",
    "permission_error",
    "request_too_large",
    "string_above_max_length",
    "tokens_limit_reached",
    "unsupported_parameter",
    "unsupported_value",
)
_TEMPORARY = (
    "engine_overloaded",
    "overloaded",
    "overloaded_error",
    "rate_limit_error",
    "rate_limit_exceeded",
    "slow_down",
)
_TRANSIENT = ("api_error", "internal_error", "internal_server_error", "server_error", "timeout_error")

CLASSES: dict[str, ErrorClass] = {
    **dict.fromkeys(_PERMANENT, ErrorClass.PERMANENT),
    **dict.fromkeys(_TEMPORARY, ErrorClass.TEMPORARY),
    **dict.fromkeys(_TRANSIENT, ErrorClass.TRANSIENT),
}

#: The caller's account or key, not its request: another endpoint, with other credentials, may serve it.
OF_THE_ACCOUNT = frozenset(
    {
        "account_deactivated",
        "authentication_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_organization",
        "model_not_found",
        "permission_denied",
        "permission_error",
    }
)


def error_names(body: bytes) -> tuple[str, ...]:
    """The code and the type which the body gives, the more exact first; none when it is of another form."""
    try:
        parsed: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if isinstance(error, str):
        return (error,)
    if not isinstance(error, dict):
        return ()
    return tuple(value for value in (error.get("code"), error.get("type")) if isinstance(value, str))


def class_of_body(names: tuple[str, ...]) -> Optional[ErrorClass]:
    """None: the body does not say, so the status decides."""
    for name in names:
        found = CLASSES.get(name)
        if found is not None:
            return found
    return None
