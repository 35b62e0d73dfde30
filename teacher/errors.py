"""What can go wrong before and while a teacher labels: one tree, every message says what to do."""


class TeacherError(Exception):
    """Base of every error this package raises on purpose."""


class CorpusError(TeacherError):
    """A corpus file is missing, empty, malformed or lacks a column."""


class LabelMismatchError(TeacherError):
    """Two sides name different labels."""


class StoreError(TeacherError):
    """A soft-label store is unfinished, damaged or belongs to something else."""


class WeakTeacherError(TeacherError):
    """The teacher is no better than a linear model, so distilling it would only lose quality."""
