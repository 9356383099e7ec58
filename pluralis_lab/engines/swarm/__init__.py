"""The swarm engine: a supervisor, a warm fork server, one process a worker, and hivemind between the workers."""
