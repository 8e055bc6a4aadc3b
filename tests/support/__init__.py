"""What the tests use to judge the instrumentation. Nothing here imports the package under test.

With pytest's ``pythonpath = ["tests"]``: ``from support.conformance import assert_conformant``.
"""
