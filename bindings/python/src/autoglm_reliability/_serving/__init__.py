# SPDX-License-Identifier: Apache-2.0
"""What the servers' middlewares have in common: it knows HTTP, but neither ASGI nor WSGI."""
