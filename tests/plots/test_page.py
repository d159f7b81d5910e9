"""Tables of what was found."""

from gentraj.plots.page import text_table


def test_the_columns_of_a_text_table_end_at_one_place_and_its_names_begin_at_one() -> None:
    rows = [["", "data", "a random agent"], ["return", 1234.5, None], ["success rate", 0.5, 1]]
    lines = text_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split() for line in lines[1:]] == [["return", "1234", "—"], ["success", "rate", "0.5", "1"]]
    assert lines[1].startswith("return ") and lines[2].index("0.5") + 3 == lines[1].index("1234") + 4
