"""Whether the time to refuse a key tells how much of it was right: Welch's t over two kinds of wrong keys.

Times of single calls are noisy, so no test asserts on them. A t beyond 4.5 is taken for a difference, as is
usual in tests for leaks. A comparison that stops at the first difference is measured beside it, to show that
it would be seen.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import hmac
import random
import statistics
import time
from collections.abc import Callable

from trilith_gateway import key


def times(call: Callable[[str], object], inputs: tuple[str, str], count: int) -> tuple[list[int], list[int]]:
    """Return nanoseconds of `count` calls with each of the two inputs, in random order."""
    found: tuple[list[int], list[int]] = ([], [])
    rng = random.Random(1)
    for _ in range(2 * count):
        which = rng.randrange(2)
        began = time.perf_counter_ns()
        call(inputs[which])
        found[which].append(time.perf_counter_ns() - began)
    return found


def welch(first: list[int], second: list[int]) -> float:
    """Return Welch's t, without the slowest tenth, in which the machine does something else."""
    limit = sorted(first + second)[int(0.9 * (len(first) + len(second)))]
    a, b = ([value for value in values if value <= limit] for values in (first, second))
    spread = statistics.variance(a) / len(a) + statistics.variance(b) / len(b)
    return (statistics.fmean(a) - statistics.fmean(b)) / spread**0.5 if spread else 0.0


def stops_early(given: str, kept: str) -> bool:
    """Compare as one must not."""
    for a, b in zip(given, kept, strict=True):  # noqa: SIM110  # the loop is the point
        if a != b:
            return False
    return True


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls of each kind")
    count = parser.parse_args().calls
    made, token = key.mint("timed")
    ring = key.KeyRing(lambda: [made])
    head = token[: -len(token.split("_", 2)[2])]
    near, far = token[:-1] + ("A" if token[-1] != "A" else "B"), head + "A" * 43
    digest = hashlib.sha256(b"x").hexdigest()
    late, early = digest[:-1] + "g", "g" + digest[1:]
    gc.disable()
    rows = {
        "finding a key: all but the last letter right, none right": (ring.find, (near, far)),
        "comparing digests: last letter wrong, first letter wrong": (
            lambda given: hmac.compare_digest(given, digest),
            (late, early),
        ),
        "for contrast, a comparison that stops early": (
            lambda given: stops_early(given, digest),
            (late, early),
        ),
    }
    for name, (call, inputs) in rows.items():
        t = welch(*times(call, inputs, count))
        print(
            f"{name:60} t = {t:7.2f}  {'differs' if abs(t) > 4.5 else 'no difference'}  ({2 * count:,} calls)"
        )


if __name__ == "__main__":
    main()
