# SPDX-License-Identifier: Apache-2.0
"""A response on its way out: it tells the limits. With its end the slot is free and tokens are settled."""

from __future__ import annotations

from typing import Optional

from .._aside import ended
from .._serving.limits import Held
from ._gate import Slot
from ._types import BODY, FILES, START, Message, Send


class Metered:
    __slots__ = ("_ended", "_held", "_send", "_slot", "_waits")

    def __init__(self, send: Send, held: Optional[Held], slot: Optional[Slot], waits: bool) -> None:
        self._send, self._held, self._slot = send, held, slot
        self._waits = waits
        self._ended = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        held = self._held
        if kind == BODY:
            if held is not None and held.meter is not None:
                held.meter.feed(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        elif kind == START:
            if held is not None:
                headers = list(message.get("headers", ()))
                if held.meter is not None:
                    held.meter.start(message["status"], headers)
                message = {**message, "headers": headers + held.headers}
        elif kind in FILES:
            self._ended = not message.get("more_body", False)
        if self._ended and held is not None and not self._waits:
            # Whoever has all of a response finds its tokens settled. A store may be asked afterwards.
            self._held = None
            held.settle(True)
        try:
            await self._send(message)
        finally:
            if self._ended:
                await self.over()

    async def over(self) -> None:
        """May be called again: the first counts."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.leave()
        held, self._held = self._held, None
        if held is None:
            return
        if self._waits:
            await ended(lambda: held.settle(self._ended))
        else:
            held.settle(self._ended)
