"""Facts about the tables of proof: what they say, and that a figure that is absent is a dash."""

from export.report_proof import label_errors_table, paired_table, recall_table, suspects_table

REPORT = {
    "paired": {
        "both_right": 2800,
        "student_alone": 31,
        "teacher_alone": 52,
        "p_value": 0.0271,
        "agreement": 0.968,
        "expected_gap": -0.004,
    },
    "recall": [{"label": "card_lost", "n": 40, "recall": 0.9, "teacher_recall": 0.95}],
    "label_errors": {
        "parts": [{"part": "test", "rows": 3080, "suspects": 57, "probabilities": "the teacher"}],
        "rows": [
            {
                "part": "test",
                "text": "my card | is <lost>",
                "given": "card_lost",
                "suggested": "card_stolen",
                "given_probability": 0.02,
                "suggested_probability": 0.97,
            }
        ],
    },
}


def test_the_paired_table_holds_the_test_and_the_agreement() -> None:
    rows = dict(paired_table(REPORT).rows)
    assert (rows["student alone right"], rows["teacher alone right"]) == ("31", "52")
    assert (rows["McNemar's exact test, p"], rows["decide alike"]) == ("0.0271", "96.8 %")
    assert rows["gap that the teacher expects, points"] == "−0.4"
    assert rows["both wrong"] == "–"


def test_the_recall_of_a_label_stands_beside_the_teachers() -> None:
    assert recall_table(REPORT).rows == (("card_lost", "90.0 %", "95.0 %", "−5.0", "40"),)


def test_suspects_are_counted_by_part_and_shown_with_both_labels() -> None:
    assert label_errors_table(REPORT).rows == (("test", "the teacher", "3,080", "57"),)
    assert suspects_table(REPORT).rows == (("my card | is <lost>", "test", "card_lost", "card_stolen", "2 %", "97 %"),)


def test_a_report_of_an_older_run_says_that_nothing_was_measured() -> None:
    assert {value for _, value in paired_table({}).rows} == {"–"}
    assert recall_table({}).note == "Not measured."
    assert label_errors_table({}).note == "Not looked for."
    assert suspects_table({}).note == "None."
