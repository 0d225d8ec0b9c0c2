"""One module for each benchmark: `run(ctx)` measures and returns its rows. `bench.run` lists them."""
