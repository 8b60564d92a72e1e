from serve.labelled import example_id


def test_example_ids_depend_on_both_texts() -> None:
    ids = {
        example_id("a", None),
        example_id("a", "b"),
        example_id("ab", None),
        example_id("b", "a"),
    }
    assert len(ids) == 4
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in ids)
