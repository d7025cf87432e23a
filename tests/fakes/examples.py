"""How many examples hypothesis tries, and that none of them has a time limit: a slow machine makes no test red.

By itself it tries others at every run. `make test` takes its profile `ci`, in which they are always the same, and
`make test-fast` the profile `quick`, with a quarter of them.
"""

from hypothesis import HealthCheck, settings

_USUAL = 100
"""Examples that hypothesis tries by itself; a profile with fewer of them has fewer of those that tests ask for, too."""
_ONLY_SLOW = (HealthCheck.too_slow,)

settings.register_profile("usual", deadline=None, suppress_health_check=_ONLY_SLOW)
settings.register_profile("quick", settings.get_profile("usual"), max_examples=_USUAL // 4)
settings.load_profile("usual")


def examples(count: int, *, steps: int = 50, expected: tuple[HealthCheck, ...] = ()) -> settings:
    """Returns settings for `count` examples, of so many `steps` each; `expected` is no fault of the test."""
    scaled = count * settings().max_examples // _USUAL
    return settings(max_examples=scaled, stateful_step_count=steps, suppress_health_check=(*_ONLY_SLOW, *expected))
