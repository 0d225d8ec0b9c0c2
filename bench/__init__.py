"""Side-by-side benchmarks: Martlet and its peers, measured in the same run on the same machine."""
