"""What a stage computes and what it exchanges: codecs, tasks, optimizers, aggregation. No sockets, files or clocks."""
