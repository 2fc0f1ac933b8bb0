"""What the benchmarks share: alternating runs, medians, one table."""

import statistics
import time
from collections.abc import Callable


def compare(contestants: dict[str, Callable[[], int]], rounds: int = 3) -> dict[str, float]:
    """Run all contestants in turn, `rounds` times, and print images per second.

    Alternating them spreads the machine's own ups and downs over all.

    Args:
        contestants: {name: function that does the work and returns the number of images}.
        rounds: Counted runs of each.

    Returns:
        {name: median images per second}.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            started = time.perf_counter()
            count = work()
            rates[name].append(count / (time.perf_counter() - started))
    first = next(iter(contestants))
    print(f"{'':44}{'images/s':>10}{'min':>9}{'max':>9}{'ratio to the first':>20}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(
            f"{name:44}{medians[name]:>10,.0f}{min(values):>9,.0f}{max(values):>9,.0f}"
            f"{statistics.median(b / a for a, b in zip(rates[first], values, strict=True)):>20.3f}"
        )
    return medians
