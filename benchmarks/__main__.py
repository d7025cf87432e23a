"""Runs all benchmarks, one after the other."""

from benchmarks import (
    bench_callers,
    bench_connect,
    bench_groups,
    bench_growth,
    bench_issue,
    bench_observed,
    bench_proxies,
    bench_reissue,
    bench_several,
    bench_start,
    bench_turns,
)

if __name__ == "__main__":
    bench_issue.main()
    bench_connect.main()
    bench_several.main()
    bench_proxies.main()
    bench_reissue.main()
    bench_growth.main()
    bench_callers.main()
    bench_turns.main()
    bench_groups.main()
    bench_observed.main()
    bench_start.main()
