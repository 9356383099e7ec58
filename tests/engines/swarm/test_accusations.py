"""A machine that can reach nobody is let go; one whose links break now and then is not."""

from pluralis_lab.engines.swarm.accusations import MOST, WITHIN_S, Accusations


def test_whoever_gives_up_live_workers_again_and_again_is_the_one_to_go():
    accusations = Accusations()
    assert [accusations.are_too_many("worker-9", 10.0 * n) for n in range(MOST + 2)] == [False] * MOST + [True, True]
    assert not accusations.are_too_many("worker-8", 50.0), "what another one says is not counted against it"
    accusations.forget("worker-9")
    assert not accusations.are_too_many("worker-9", 60.0)


def test_links_that_break_now_and_then_are_nobodys_fault():
    accusations = Accusations()
    assert not any(accusations.are_too_many("worker-9", n * WITHIN_S / 2 * 1.01) for n in range(50))
