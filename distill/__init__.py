"""Make the student agree with its teacher; the conductor of the pipeline lives here."""

__version__ = "0.1.0"
