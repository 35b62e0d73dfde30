"""What can go wrong while a student is built."""


class StudentError(Exception):
    """A student cannot be built as asked: the message says what was found, wanted and to do."""
