"""What all tests share."""

from hypothesis import HealthCheck, settings

# Examples are timed on machines of any speed and load; the run as a whole is limited instead.
settings.register_profile(
    'project', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('project')
