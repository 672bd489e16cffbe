"""What the benchmarks share: the load generator, figures of processes, the table as it grows."""
