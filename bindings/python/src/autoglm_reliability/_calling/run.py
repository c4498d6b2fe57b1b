# SPDX-License-Identifier: Apache-2.0
"""The attempts of a request, and the body of its answer. It is written once, as coroutines: a blocking
transport runs them with an IO that never suspends, see run_now."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Callable, Generic, Optional, Protocol, TypeVar

from .. import _generated as c
from ..classify import AttemptOutcome
from ..errors import Refused
from .answer import classify_answer
from .body import ERROR_BODY_BYTES, OF_THE_ACCOUNT, error_names
from .exchange import Exchange
from .failure import Kinds, classify_failure
from .limits import Get, used_up
from .usage import TAIL_BYTES, real_costs

T = TypeVar("T")


class Answer(ABC):
    """A response whose body has not been read."""

    """
    is_json    it is a document in JSON.
    says_zero  the value of some header is 0, as of a limit that is used up.
    """

    status: int
    get: Get
    is_json: bool
    says_zero: bool

    @abstractmethod
    async def read(self) -> Optional[bytes]:
        """The next bytes; None: that was all."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def decoded(self, body: bytes) -> bytes:
        """The body without its content encoding."""


A = TypeVar("A", bound=Answer)
C = TypeVar("C", bound=Answer, covariant=True)


class IO(Protocol[C]):
    kinds: Kinds

    async def send(self, exchange: Exchange) -> C: ...

    async def within(self, limit: float, work: Coroutine[Any, Any, T]) -> T:
        """Raises when time.monotonic() reaches the limit before the work has ended."""

    async def sleep(self, exchange: Exchange, duration: float) -> None: ...

    async def wait(self, exchange: Exchange) -> None:
        """As long as the exchange's step says."""

    async def aside(self, work: Callable[[], object]) -> None:
        """What may wait for a store: beside the event loop, if there is one, and to its end."""

    def refused(self, error: Refused) -> Exception:
        """The same as an exception of the library's."""


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine which never suspends."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise RuntimeError("a blocking transport has suspended")


class Run(Generic[A]):
    """
    answer          the one to pass on, once obtain() has returned.
    held            of its body what has been read already.
    whole           that is all of it.
    of_the_account  it was refused for the credentials' sake, not the request's.
    """

    answer: Optional[A] = None
    held = b""
    whole = False
    of_the_account = False
    _error: Optional[Exception] = None
    _digest: Optional[hashlib._Hash] = None
    _passed = 0
    _tail = b""

    def __init__(self, io: IO[A], exchange: Exchange, charged: int = 0) -> None:
        self._io = io
        self.exchange = exchange
        self._charged = charged
        if exchange.options.retry_after_first_byte:
            self._digest = hashlib.sha256()

    @property
    def obtained(self) -> A:
        """What obtain() has returned."""
        assert self.answer is not None
        return self.answer

    async def obtain(self) -> A:
        """Makes attempts until there is an answer to pass on: a good one, or the last one. Raises the last
        attempt's exception, or a refusal."""
        try:
            wait = self.exchange.pause() if self.exchange.host.resume_ns else 0.0
            if wait:
                await self._io.sleep(self.exchange, wait)
                await self._step(partial(self.exchange.resume, wait))
            return await self._attempts()
        except Refused as error:
            await self.close()
            raise self._io.refused(error) from error.__cause__
        except BaseException:
            await self.close()
            raise

    async def _attempts(self) -> A:
        exchange = self.exchange
        while True:
            kind = exchange.kind
            if kind == c.AGR_STEP_ATTEMPT:
                if self.answer is not None:
                    await self._drop()
                answer = await self._attempt()
                if answer is not None:
                    return answer
            elif kind == c.AGR_STEP_DONE:
                return await self._conclude()
            else:
                if not self.whole:
                    await self._drop()  # its connection is not to wait as well
                await self._io.wait(exchange)
                await self._step(exchange.go_on)

    async def _attempt(self) -> Optional[A]:
        """None: there is no good answer."""
        exchange = self.exchange
        if self._error is not None:
            self._error = None
        try:
            limit = exchange.start()
            answer = await self._io.within(limit, self._send())
        except Exception as error:
            self._error = error
            await self._drop()
            await self._fail(classify_failure(error, self._io.kinds))
            return None
        if answer.status >= 400:
            await self._fail(self._judged(answer))
            return None
        if answer.says_zero:
            exchange.rest(used_up(answer.get))
        if self.whole:
            costs = self.costs_of(self.held) if self._charged else ()
            if exchange.waits:
                await self._io.aside(partial(exchange.succeed, costs))
            else:
                exchange.succeed(costs)  # most calls end here
        return answer

    async def _step(self, work: Callable[[], object]) -> None:
        """A step of the policy's call, which waits only when a part of the policy is in a store."""
        if self.exchange.waits:
            await self._io.aside(work)
        else:
            work()

    async def _fail(self, outcome: AttemptOutcome) -> None:
        await self._step(partial(self.exchange.fail, outcome))

    async def _succeed(self, body: bytes) -> None:
        await self._step(partial(self.exchange.succeed, self.costs_of(body)))

    async def _send(self) -> A:
        self.answer = answer = await self._io.send(self.exchange)
        if answer.status >= 400:
            await self._hold(answer, ERROR_BODY_BYTES)
        elif answer.is_json and self._digest is None and self.exchange.options.hold_json:
            await self._hold(answer, self.exchange.options.hold_json)
        return answer

    async def _hold(self, answer: A, most: int) -> None:
        """Reads the body as far as it is held before anything is passed on."""
        parts: list[bytes] = []
        length = 0
        while length <= most:
            part = await answer.read()
            if part is None:
                self.whole = True
                await answer.close()
                break
            parts.append(part)
            length += len(part)
        self.held = b"".join(parts)

    def _judged(self, answer: A) -> AttemptOutcome:
        exchange = self.exchange
        names: tuple[str, ...] = ()
        if self.whole and "json" in (answer.get("content-type") or ""):
            names = error_names(answer.decoded(self.held))
        self.of_the_account = answer.status in (401, 402, 403) or not OF_THE_ACCOUNT.isdisjoint(names)
        repeatable = exchange.repeatable
        return classify_answer(exchange.policy, answer.status, answer.get, names, repeatable)

    async def _conclude(self) -> A:
        """When the policy has said that this is the end: what the last attempt gave."""
        refusal = self.exchange.refusal() if self._error is None and self.answer is None else None
        await self._step(self.exchange.close)
        if self.answer is not None:
            return self.answer
        error, self._error = refusal or self._error, None
        assert error is not None
        try:
            raise error
        finally:
            del error, refusal  # its traceback holds this frame

    async def next(self) -> Optional[bytes]:
        """The next bytes to pass on; None: that was all. Raises what broke the stream."""
        while True:
            if self.held:
                held, self.held = self.held, b""
                return self._pass(held)
            if self.whole or self.answer is None:
                return None
            try:
                part = await self._io.within(self.exchange.limit, self.answer.read())
            except Exception as error:
                if not await self._resumed(error):
                    raise
                continue
            except BaseException:
                await self.close()
                raise
            if part is not None:
                return self._pass(part)
            self.whole = True
            if not self.exchange.closed:
                await self._succeed(self._tail)
            return None

    def _pass(self, part: bytes) -> bytes:
        if self._digest is not None:
            self._digest.update(part)
        elif self._passed == 0 and not self.exchange.closed:
            self.exchange.commit()
        self._passed += len(part)
        if self._charged:
            self._tail = (self._tail + part)[-TAIL_BYTES:]
        return part

    async def _resumed(self, error: Exception) -> bool:
        """After a break: whether there is another answer, now at the same place."""
        exchange = self.exchange
        if exchange.closed:
            return False
        await self._drop()
        await self._fail(classify_failure(error, self._io.kinds))
        if self._digest is None:
            await self._step(exchange.close)
            return False
        try:
            answer = await self._attempts()
            if answer.status < 400 and await self._io.within(exchange.limit, self._skip()):
                return True
            await self.close()
        except Exception:
            await self.close()
        return False

    async def _skip(self) -> bool:
        """Reads what was passed on already; whether it is the same again."""
        assert self.answer is not None
        again, left = hashlib.sha256(), self._passed
        while left:
            part = await self.answer.read()
            if part is None:
                return False
            again.update(part[:left])
            self.held = part[left:]
            left -= min(left, len(part))
        assert self._digest is not None
        return again.digest() == self._digest.digest()

    def costs_of(self, body: bytes) -> Sequence[Optional[int]]:
        if not self._charged:
            return ()
        assert self.answer is not None
        return real_costs(self.answer.decoded(body) if self.whole else body, self._charged)

    async def _drop(self) -> None:
        answer, self.answer, self.held, self.whole = self.answer, None, b"", False
        if answer is not None:
            await answer.close()

    async def close(self) -> None:
        """The answer is not needed any more; before its end that is nobody's failure."""
        try:
            if not self.exchange.closed:
                await self._step(self.exchange.close)
        finally:
            if self.answer is not None:
                await self.answer.close()
