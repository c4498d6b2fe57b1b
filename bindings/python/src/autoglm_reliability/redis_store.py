# SPDX-License-Identifier: Apache-2.0
"""A store on a Redis or Valkey server."""

from __future__ import annotations

import os
from functools import cache
from typing import Optional, Union

from . import _generated as c
from . import _generated_redis as redis
from ._convert import Duration, fill
from ._ffi import StoreLibrary, byref, check, sized
from .enums import OnStoreError
from .errors import ArgumentError
from .store import Store

Text = Union[str, bytes]
File = Union[str, bytes, os.PathLike[str]]


@cache
def _redis() -> StoreLibrary:
    return StoreLibrary("redis", redis.FUNCTIONS)


class RedisStore(Store):
    """A store on a Redis or Valkey server, shared by processes on any number of machines.

    address            "host", "host:port", "[v6]:port", "unix:/path", or several with commas between: servers
                       of a cluster, or the sentinels; "127.0.0.1:6379".
    sentinel           the name of the master that the sentinels at `address` watch; by default `address` is
                       the server.
    user, password     of an access control list; by default the server's default user, and no password.
    sentinel_user, sentinel_password  the same, of the sentinels.
    prefix             of all keys; "agr".
    tls                TLS 1.2 or later; no.  verify: whether the server's certificate must be good, and of
                       its host name; yes.
    ca_file            authorities in PEM; the system's.  certificate_file, key_file: of the client.
    database           0; a cluster has no other.
    connections        to each server, which threads share; 2.
    connect_timeout    seconds, within the time of the call; 1.
    max_result_bytes   of a result; 16 MiB.

    It offers idempotency, buckets, breaker state and leases. Nothing is asked of the server yet: ping does.
    After a fork both processes may go on with it.
    """

    def __init__(
        self,
        address: Optional[Text] = None,
        *,
        sentinel: Optional[Text] = None,
        user: Optional[Text] = None,
        password: Optional[Text] = None,
        sentinel_user: Optional[Text] = None,
        sentinel_password: Optional[Text] = None,
        prefix: Optional[Text] = None,
        tls: Optional[bool] = None,
        verify: Optional[bool] = None,
        ca_file: Optional[File] = None,
        certificate_file: Optional[File] = None,
        key_file: Optional[File] = None,
        database: Optional[int] = None,
        connections: Optional[int] = None,
        connect_timeout: Optional[Duration] = None,
        max_result_bytes: Optional[int] = None,
        on_error: Optional[OnStoreError] = None,
        timeout: Optional[Duration] = None,
        max_failures: Optional[int] = None,
        max_calls: Optional[int] = None,
        open: Optional[Duration] = None,
        open_max: Optional[Duration] = None,
    ) -> None:
        library = _redis()
        config = sized(redis.agr_redis_config)
        library.agr_redis_config_init(byref(config), config.struct_size)
        numbers = {"tls": tls, "verify": verify, "database": database, "connections": connections}
        fill(config, {**numbers, "connect_timeout": connect_timeout, "max_result_bytes": max_result_bytes})
        names = {"address": address, "sentinel": sentinel, "user": user, "password": password}
        texts = {**names, "sentinel_user": sentinel_user, "sentinel_password": sentinel_password}
        files = {"ca_file": ca_file, "certificate_file": certificate_file, "key_file": key_file}
        for field, text in {**texts, "prefix": prefix, **files}.items():
            if text is not None:
                setattr(config, field, _bytes(text, field))
        driver, error = c.agr_store_driver(), c.agr_error()
        check(library.agr_redis_open(byref(config), byref(driver), byref(error)), error)
        self._own(driver, on_error, timeout, max_failures, max_calls, open, open_max)


def _bytes(text: File, field: str) -> bytes:
    try:
        data = os.fsencode(text)
    except TypeError:
        raise TypeError(f"{field}: str or bytes are needed, not {type(text).__name__}") from None
    if b"\0" in data:
        raise ArgumentError(f"{field} must not contain a NUL", field)
    return data
