"""What supervisor and worker say to each other: one byte a message, over a pair of sockets."""

# To a worker: a connection to serve (the descriptor rides along), look for new versions, stop being ready, finish.
CONNECTION, RELOAD, DRAIN, QUIT = b"c", b"r", b"d", b"q"
# To the supervisor: ready for connections; a client asked this worker for new versions.
READY, RELOAD_ALL = b"R", b"A"
