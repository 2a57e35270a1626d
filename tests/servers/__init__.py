"""Real servers for the tests: each starts on 127.0.0.1, on a free port, and dies with the test process."""
