"""What can go wrong between a trained student and an answer in production."""


class ExportError(Exception):
    """Base of every error this package raises on purpose."""


class BundleError(ExportError):
    """A bundle is unfinished, damaged, or holds something its manifest does not list."""


class TextTooLongError(ExportError):
    """A text has more tokens than the model takes and the bundle refuses to cut it."""
