"""What is the right answer, softly: corpora, teachers, calibration and the soft-label store."""
