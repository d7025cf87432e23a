"""Runs all benchmarks, one after the other."""

from benchmarks import bench_issue, bench_proxies

if __name__ == "__main__":
    bench_issue.main()
    bench_proxies.main()
