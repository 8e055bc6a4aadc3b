"""The authors' own tests, with and without the instrumentation."""
