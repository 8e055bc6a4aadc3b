"""What hypothesis is not asked to judge: how fast examples are made says nothing about what is tested."""

from __future__ import annotations

from hypothesis import HealthCheck

SLOW = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.function_scoped_fixture,
]
