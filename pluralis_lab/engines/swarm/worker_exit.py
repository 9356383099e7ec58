"""Exit statuses of a worker process, apart from its code so that the supervisor need not load torch to know them."""

EXIT_EXPELLED = 75
"""The others gave this worker up while it lived (a broken link, say): its supervisor starts a new incarnation."""

EXIT_LEFT = 76
"""It was asked to leave, and has left: its slot stays empty."""

EXIT_AWAY = 77
"""Nobody saw it end: the machine that it runs on cannot be reached. It comes back when that does."""

EXIT_ASIDE = 78
"""The others went on without this worker, which did not answer them, and which has heard of it now: it may begin anew."""
