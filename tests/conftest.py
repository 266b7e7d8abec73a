"""For all tests: how much hypothesis tries. Machines that run these are shared and slow: no deadlines."""

from hypothesis import HealthCheck, settings

settings.register_profile("sluice", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")
