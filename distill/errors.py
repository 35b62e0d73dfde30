"""What the conductor reports to a person, with the exit code of each."""


class DistillError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(DistillError):
    """The config or the arguments are wrong; the message lists every problem found."""

    exit_code = 2


class GateError(DistillError):
    """A gate failed: the run ends with its reason and keeps what was built so far."""


class TrainingError(DistillError):
    """Training cannot go on (a loss that is not a number, a checkpoint that does not fit)."""


class CheckFailedError(DistillError):
    """A check that the person asked for found something; the message names it."""


class InputError(DistillError):
    """A file or an argument given to a command cannot be used."""

    exit_code = 2
