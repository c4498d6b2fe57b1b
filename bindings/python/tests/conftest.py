# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from autoglm_reliability.testing import ManualClock

# A failure prints how to repeat it; two cores of a busy machine are slow enough to need no deadline.
settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    max_examples=int(os.environ.get("AGR_EXAMPLES", "60")),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def repository() -> Path:
    return REPOSITORY
