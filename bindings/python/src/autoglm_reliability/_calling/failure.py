# SPDX-License-Identifier: Apache-2.0
"""What an exception of an HTTP library says about an attempt."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from ..classify import CONNECTION_ERRORS, AttemptOutcome
from ..enums import Domain, ErrorClass

Types = tuple[type[BaseException], ...]

#: Links that are followed from an exception to what caused it.
MOST_CAUSES = 32

TRANSIENT = AttemptOutcome(ErrorClass.TRANSIENT)
UNKNOWN = AttemptOutcome(ErrorClass.UNKNOWN)
PERMANENT = AttemptOutcome(ErrorClass.PERMANENT)

# Numbers which, after a request was sent, leave open what became of it.
_OPEN = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT})
_TRY_AGAIN = frozenset({socket.EAI_AGAIN, socket.EAI_MEMORY, socket.EAI_SYSTEM})


@dataclass(frozen=True)
class Kinds:
    """The exceptions of a library.

    own       nothing was sent, and not for the host's sake: a malformed request, a full pool.
    unsent    the connection was not made.
    causes    the same, of what is found only among the causes.
    """

    own: Types
    unsent: Types
    causes: Types = ()


def classify_failure(error: BaseException, kinds: Kinds) -> AttemptOutcome:
    causes = tuple(causes_of(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return PERMANENT
        if isinstance(cause, socket.gaierror):
            return TRANSIENT if cause.errno in _TRY_AGAIN else PERMANENT
    if isinstance(error, kinds.own):
        return PERMANENT
    unsent = isinstance(error, kinds.unsent) or any(isinstance(cause, kinds.causes) for cause in causes)
    number = next((number for number in map(_number, causes) if number is not None), None)
    if number is None or (unsent and number in _OPEN):
        return TRANSIENT if unsent else UNKNOWN
    # Any other number after a request was sent leaves it as open as those which say so.
    return AttemptOutcome(domain=Domain.ERRNO, code=number) if unsent or number in _OPEN else UNKNOWN


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The exception and what caused it, however the library has wrapped it; each once."""
    waiting, seen = [error], {id(error)}
    while waiting and len(seen) <= MOST_CAUSES:
        cause = waiting.pop(0)
        yield cause
        for link in (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args):
            if isinstance(link, BaseException) and id(link) not in seen:
                seen.add(id(link))
                waiting.append(link)


def _number(error: BaseException) -> Optional[int]:
    # Clients derive their own exceptions from OSError, and TLS has numbers of its own in errno.
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):
        return None
    if isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    return next((number for kind, number in CONNECTION_ERRORS.items() if isinstance(error, kind)), None)
