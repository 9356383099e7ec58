"""What is to happen in a simulation happens in the order of its time, and goes on as long as anything but watches is left."""

from pluralis_lab.engines.virtual.agenda import Agenda


def run(agenda: Agenda) -> None:
    while not agenda.is_over:
        agenda.do_next()


def test_what_is_due_first_is_done_first_and_of_one_moment_what_was_put_down_first() -> None:
    agenda, done = Agenda(), []
    for at_s, name in ((2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b")):
        agenda.put(at_s, lambda said: done.append((agenda.now, said)), name)
    run(agenda)
    assert done == [(1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]


def test_it_goes_on_for_what_is_put_down_on_the_way_but_not_for_watches() -> None:
    agenda, done = Agenda(), []

    def watch() -> None:
        done.append("watch")
        agenda.put(agenda.now + 1.0, watch, is_watch=True)

    agenda.put(0.5, watch, is_watch=True)
    assert agenda.is_over, "a watch alone keeps it going"
    agenda.put(2.0, lambda: agenda.put(3.0, done.append, "last"))
    run(agenda)
    assert done == ["watch", "watch", "watch", "last"]
    assert agenda.now == 3.0
