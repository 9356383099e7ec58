"""The Jupyter server extension: runs over REST and web socket, read from their directories, changed by child processes."""
