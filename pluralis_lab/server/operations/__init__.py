"""What the routes do. A plain function runs in a thread, a coroutine on the server's loop."""
