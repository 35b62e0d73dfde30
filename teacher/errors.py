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


class SettingError(TeacherError):
    """What somebody wrote for a teacher cannot be used: a prompt, rules, how examples are chosen, a key."""

    exit_code = 2


class PriceError(SettingError):
    """What a call costs is not known, so it cannot be paid for."""


class BudgetError(TeacherError):
    """The next call may cost more than is left of the budget; nothing that was paid is lost."""


class EndpointError(TeacherError):
    """An LLM endpoint cannot be used at all: a refused key, a wrong address, an unknown model, or it has gone."""
