# SPDX-License-Identifier: Apache-2.0
"""What the HTTP transports have in common. It knows no HTTP library."""
