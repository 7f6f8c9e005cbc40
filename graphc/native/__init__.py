"""Replays of compiled calls in native code, over Python's C interface: `plans.direct` is what the front end uses."""
