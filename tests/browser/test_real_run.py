"""A run over hivemind, from the form to its owners, as somebody in front of JupyterLab lives it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import pluralis_lab as pl
from pluralis_lab.engines.invitation import Invitation, InvitationBook
from tests.browser.executing import executed_by_papermill
from tests.browser.labpage import LabPage
from tests.browser.labserver import LabServer
from tests.engines.swarm.conftest import small_spec

pytestmark = [pytest.mark.system("chromium"), pytest.mark.timeout(1200)]

FIELDS = {
    "model.n_layer": "2",
    "model.n_head": "2",
    "model.d_model": "32",
    "model.context": "64",
    "stages": "2",
    "replicas": "2",
    "steps": "100000",
    "batch_size": "4",
    "micro_batches": "2",
    "epoch_rounds": "100",
    "eval_every": "20",
    "checkpoint_every": "50",
}
VICTIM = "worker-3"
ADDED, BRINGER = "worker-2", "worker-3"
VIEW = ".plab-run-view"
CHANGED = "([node, first]) => /\\d/.test(node.textContent) && node.textContent !== first"
SHOWN_STATES = """([pane, worker]) => {
    const shown = window.plabStates = [];
    const look = () => {
        const state = pane.querySelector(`[data-worker="${worker}"]`)?.dataset.state;
        if (state && state !== shown.at(-1)) shown.push(state);
    };
    new MutationObserver(look).observe(pane, { subtree: true, childList: true, attributeFilter: ["data-state"] });
}"""
"""Notes every state that a worker is shown in, however short."""
OUTPUT = ".jp-OutputArea .plab-output .plab[data-seq]"


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_run_is_started_followed_through_every_restart_paid_for_and_stopped(
    lab: Callable[..., LabPage], server: LabServer, app: Literal["lab", "notebook"], tmp_path: Path
) -> None:
    second = LabServer(server.folder, server.home, app="notebook")
    try:
        page = lab() if app == "lab" else lab(f"notebooks/{empty_notebook(server)}", server=second.start())
        run = start_from_the_form(page)
        the_loss_moves(page, run)
        if app == "lab":
            open_a_notebook(page)
        insert_the_code_and_run_the_cell(page, run)
        kill_a_worker(page, run)
        reload_the_page(page, run)
        restart_the_kernel(page)
        own_it(page, run)
        assert page.ours() == []
        a_papermill_output_comes_alive(lab, page.server, run, app, tmp_path)
        restart_the_server(page, run)
        stop_from_the_panel(page, run)
        assert page.ours(network=False) == []
    finally:
        second.stop()


def test_workers_are_added_invited_and_let_go_with_the_keyboard(lab: Callable[..., LabPage], tmp_path: Path) -> None:
    spec = small_spec(steps=100_000, replicas=1, own_data=0.5)
    run = pl.launch(spec, account="lab-a", participants=["lab-a", "lab-b"], lifetime="detached")
    try:
        page = lab()
        desk, view = page.page, page.open_run(run.id)
        run.wait(round=1, timeout_s=60)  # who comes earlier is one of those who begin it
        workers = page.pane(view, "Workers")
        desk.evaluate(SHOWN_STATES, [workers.element_handle(), ADDED])
        button = view.get_by_role("button", name="Add a worker…")
        button.press("Enter")
        desk.wait_for_function("document.activeElement.matches('.plab-attach select')")
        desk.keyboard.press("Escape")
        desk.locator(".plab-attach").wait_for(state="detached")
        desk.wait_for_function("node => node === document.activeElement", arg=button.element_handle())

        # One is refused, in the words of the server; with what it says to do it works.
        page.command("pluralis-lab:attach-worker", run=run.id, stage=1, account="nobody")
        form = desk.locator(".plab-attach")
        form.locator("option", has_text="stage 0: ").wait_for(state="attached")
        desk.locator(".jp-Dialog-button.jp-mod-accept").press("Enter")
        refusal = form.get_by_role("alert").filter(has_text="account='nobody' is not in this home; it has lab-a, lab-b")
        refusal.wait_for()
        form.get_by_label("Account").select_option("lab-b")
        desk.locator(".jp-Dialog-button.jp-mod-accept").press("Enter")
        form.wait_for(state="detached")
        row = workers.locator(f'.plab-grid-row[data-worker="{ADDED}"]')
        row.and_(desk.locator('[data-state="active"]')).wait_for()
        assert "lab-b" in row.inner_text()
        shown = desk.evaluate("window.plabStates")
        assert shown[-1] == "active"
        assert set(shown[:-1]) <= {"starting", "joining", "syncing", "warming"}
        told = [event.body["state"] for event in run.events("worker.state") if event.worker == ADDED]
        assert len(told) > 1  # the page shows of them what lasts longer than a picture takes
        page.pane(view, "Overview").locator(".plab-notes", has_text=f"{ADDED} of lab-b joined stage 1").wait_for()
        node = page.pane(view, "Topology").locator(f'.plab-node[data-worker="{ADDED}"]')
        node.and_(desk.locator('[data-state="active"]')).wait_for()
        (added,) = [worker for worker in run.info["workers"] if worker["name"] == ADDED]
        assert (added["stage"], added["participant"]) == (1, "lab-b")

        ask_the_model(page, view)
        one_brings_a_text(page, view, tmp_path)
        the_invitation_is_shown_and_kept_nowhere(page, view, run)
        one_is_let_go(page, view, run)

        # Of a run that has ended the command says why not.
        run.stop()
        page.done("pluralis-lab:refresh")
        desk.wait_for_function(
            """run => {
                const [commands, id] = [window.jupyterapp.commands, "pluralis-lab:attach-worker"];
                return !commands.isEnabled(id, { run }) && commands.caption(id, { run }).includes("resume it first");
            }""",
            arg=run.id,
        )
        button.wait_for(state="hidden")
        asked = page.pane(view, "Ask")
        asked.get_by_text("The run has no live workers; resume it to ask its model.").wait_for()
        assert asked.get_by_role("button", name="Write").get_attribute("aria-disabled") == "true"
        assert page.ours(network=False) == []  # the console names every answer that is a refusal
    finally:
        run.stop()


def one_brings_a_text(lab: LabPage, view: Any, folder: Path) -> None:
    """Only a worker of stage 0 may; a text that cannot be read is refused in words."""
    page, notes = lab.page, folder / "my notes.txt"
    notes.write_text("the quick brown fox jumps over the lazy dog. " * 1000)
    view.get_by_role("button", name="Add a worker…").press("Enter")
    form = page.locator(".plab-attach")
    text = form.get_by_label("Its own text")
    form.get_by_label("Stage").select_option("1")
    text.wait_for(state="hidden")
    form.get_by_label("Stage").select_option("0")
    form.get_by_text("Every stage can read what is drawn, as token ids.").wait_for()
    text.fill("/no/such/notes.txt")
    text.press("Enter")
    form.get_by_role("alert").filter(has_text="/no/such/notes.txt does not exist; give a text file or a folder").wait_for()
    text.fill(f"path:{notes}")
    text.press("Enter")
    form.wait_for(state="detached")
    row = lab.pane(view, "Contributions").locator(".plab-section tr", has_text="my notes.txt").filter(has_text=BRINGER)
    row.locator("td", has_text=re.compile(r"^[1-9].* tokens$")).nth(1).wait_for()  # of its size, and of what was drawn of it


SEEN_ANYWHERE = """secret => [
    location.href,
    document.documentElement.outerHTML,
    ...[...document.querySelectorAll("input, textarea")].map(field => field.value),
    JSON.stringify(localStorage),
    JSON.stringify(sessionStorage),
].filter(text => text.includes(secret)).length"""


def the_invitation_is_shown_and_kept_nowhere(lab: LabPage, view: Any, run: pl.Run) -> None:
    page = lab.page
    view.get_by_role("button", name="Invite…").press("Enter")
    form = page.locator(".plab-invite")
    form.get_by_text("This run listens on 127.0.0.1 alone").wait_for()
    form.get_by_label("Seats").fill("0")
    page.keyboard.press("Enter")
    form.get_by_role("alert").filter(has_text="seats=0").wait_for()
    form.get_by_label("Seats").fill("3")
    page.keyboard.press("Enter")
    shown = page.locator(".plab-invitation")
    shown.get_by_text("3 workers may come with it").wait_for()
    text = str(shown.get_by_role("textbox", name="The invitation").input_value())
    invitation = Invitation.parse(text)
    assert invitation.run == run.id
    assert InvitationBook(run.path / "invitations.json").find(invitation.secret)["left"] == 3
    assert shown.get_by_role("textbox", name="In a shell").input_value() == f"pluralis-lab join {text}"
    assert "kept in no log, event, setting or address" in shown.inner_text()
    assert page.evaluate(SEEN_ANYWHERE, text) > 0
    page.wait_for_function("document.activeElement.matches('.plab-copy')")
    page.keyboard.press("Enter")
    shown.get_by_role("status").filter(has_text="The invitation is in the clipboard").wait_for()
    page.keyboard.press("Escape")
    shown.wait_for(state="detached")
    assert page.evaluate(SEEN_ANYWHERE, text) == 0
    for place in (lab.server.log, *(file.read_text() for file in (run.path / "logs").iterdir())):
        assert text not in place
        assert invitation.secret not in place


def one_is_let_go(lab: LabPage, view: Any, run: pl.Run) -> None:
    page, workers = lab.page, lab.pane(view, "Workers")
    workers.locator('.plab-grid-row[data-worker="worker-0"]').click()
    workers.get_by_role("button", name="Kill this worker…").wait_for()
    assert workers.get_by_role("button", name="Let it go…").count() == 0, "the spec's own stay"
    workers.locator(f'.plab-grid-row[data-worker="{ADDED}"]').click()
    button = workers.get_by_role("button", name="Let it go…")
    button.press("Enter")
    page.wait_for_function("document.activeElement.innerText.includes('Keep it')")
    page.keyboard.press("Enter")
    page.locator(".jp-Dialog").wait_for(state="detached")
    # The palette's way: which run is the chosen one, and who is asked.
    page.keyboard.press("Control+Shift+C")
    page.locator(".lm-CommandPalette-input").wait_for()
    page.keyboard.type("Let a Worker of a Training Run Go")
    page.locator(".lm-CommandPalette-item.lm-mod-active", has_text="Let a Worker of a Training Run Go").wait_for()
    page.keyboard.press("Enter")
    question = page.locator(".jp-Dialog select")
    question.wait_for()
    assert [str(one).split(" ")[0] for one in question.locator("option").all_inner_texts()] == [BRINGER, ADDED]
    question.select_option(label=f"{ADDED} · stage 1 · lab-b")
    page.locator(".jp-Dialog-button.jp-mod-accept").press("Enter")
    page.get_by_text("finishes what it has begun and leaves").wait_for()
    assert "does not come back" in lab.answer("Let it go")
    row = workers.locator(f'.plab-grid-row[data-worker="{ADDED}"]')
    row.and_(page.locator('[data-state="stopped"]')).wait_for()
    button.wait_for(state="hidden")
    (row,) = [worker for worker in run.info["workers"] if worker["name"] == ADDED]
    assert row["left"]


def ask_the_model(lab: LabPage, view: Any) -> None:
    pane = lab.pane(view, "Ask")
    pane.get_by_label("Text to go on from").fill("import ")
    pane.get_by_label("Tokens").fill("0")
    pane.get_by_role("button", name="Write").press("Enter")
    pane.get_by_role("alert").filter(has_text="Tokens: a whole number from 1").wait_for()
    pane.get_by_label("Tokens").fill("24")
    pane.get_by_label("Text to go on from").press("Control+Enter")
    pane.get_by_text("24 tokens in ").wait_for()
    answer = pane.locator(".plab-answer")
    assert answer.inner_text().startswith("import ")
    assert len(str(answer.text_content())) > len("import ")
    pane.get_by_label("Tokens").fill("100000")
    pane.get_by_role("button", name="Write").press("Enter")
    lab.page.wait_for_function("node => node.textContent.length > 60", arg=answer.element_handle())
    pane.get_by_role("button", name="Stop writing").press("Enter")
    pane.get_by_text("stopped after ").wait_for()
    pane.get_by_role("button", name="Write").wait_for()


def empty_notebook(server: LabServer) -> str:
    """The name of a new notebook with one empty cell."""
    import nbformat

    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()], metadata=spec), server.notebooks / "mine.ipynb")
    return "mine.ipynb"


def open_a_notebook(lab: LabPage) -> None:
    lab.done("notebook:create-new", kernelName="python3")


def start_from_the_form(lab: LabPage) -> str:
    """Return the id of the new run."""
    page = lab.page
    lab.panel().get_by_role("button", name="New run…").click()
    form = page.locator(".plab-form-body")
    form.wait_for()
    form.locator("details.plab-more > summary").click()
    form.get_by_label("kind of boundary").select_option("subspace")
    for path, value in FIELDS.items():
        form.locator(f'input[data-path="{path}"]').fill(value)
    form.get_by_label("account", exact=True).fill("lab-a")
    form.get_by_label("participants", exact=True).fill("lab-a, lab-b")
    # The verdict is that of the last text: what was typed is checked a moment later, and Start waits for it.
    page.locator(".plab-form-verdict.plab-mod-good").wait_for()
    start = form.get_by_role("button", name="Start the run")
    start.click()
    page.locator(f"{VIEW}[data-seq], .plab-form .plab-fault[role=alert]:not([hidden]):not(:empty)").first.wait_for(
        timeout=120_000
    )
    assert page.locator(".plab-form .plab-fault[role=alert]:not([hidden]):not(:empty)").all_inner_texts() == []
    run = str(page.locator(VIEW).locator("..").get_attribute("id")).removeprefix("pluralis-lab-run-")
    (row,) = [row for row in lab.server.ask("GET", "runs")["runs"] if row["id"] == run]
    assert (row["stages"], row["replicas"], row["steps"], row["participants"]) == (2, 2, 100_000, ["lab-a", "lab-b"])
    return run


def the_loss_moves(lab: LabPage, run: str) -> None:
    lab.line(run).and_(lab.page.locator('[data-state="running"]')).wait_for(timeout=120_000)
    lab.moves(VIEW)
    overview = lab.pane(lab.run_view(run), "Overview")
    loss = overview.locator(".plab-figure", has_text="training loss").locator(".plab-figure-value")
    first = loss.inner_text()
    lab.page.wait_for_function(CHANGED, arg=[loss.element_handle(), first])


def kill_a_worker(lab: LabPage, run: str) -> None:
    page, view = lab.page, lab.open_run(run)
    topology = lab.pane(view, "Topology")
    node = topology.locator(f'.plab-node[data-worker="{VICTIM}"]')
    node.and_(page.locator('[data-state="active"]')).wait_for()
    node.click()  # opens it among the workers
    workers = view.locator('.plab-pane[data-pane="workers"]')
    workers.locator(".plab-log", has_text="met all 3 peers").wait_for()
    workers.get_by_role("button", name="Kill this worker…").click()
    assert VICTIM in lab.answer("Kill it")
    lab.pane(view, "Topology")
    topology.locator(f'.plab-node.plab-dying[data-worker="{VICTIM}"]').wait_for()
    # Its slot is started again, and says what happened to it.
    node.and_(page.locator('[data-state="active"][aria-label*="died once"]')).wait_for(timeout=90_000)
    workers = lab.pane(view, "Workers")
    row = workers.locator(f'.plab-grid-row[data-worker="{VICTIM}"]')
    row.and_(page.locator('[data-state="active"]')).wait_for()
    dead = [event.worker for event in pl.open_run(run).events("worker.state") if event.body["state"] == "dead"]
    assert dead == [VICTIM]


def insert_the_code_and_run_the_cell(lab: LabPage, run: str) -> None:
    page = lab.page
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    lab.panel()
    lab.line(run).click()
    page.locator("#pluralis-lab-panel").get_by_role("button", name="Insert code").click()
    page.wait_for_function(
        "run => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource().includes(run)", arg=run
    )
    lab.done("notebook:run-cell")
    page.locator(f'{OUTPUT}[data-run="{run}"]').wait_for()
    page.locator('.plab-output-bar[data-kind="live"]', has_text="live").wait_for()
    lab.moves(OUTPUT)
    lab.done("docmanager:save")


def reload_the_page(lab: LabPage, run: str) -> None:
    lab.page.reload()
    lab.ready()
    show_notebook(lab)
    lab.moves(OUTPUT)
    lab.open_run(run)
    lab.moves(VIEW)


def restart_the_kernel(lab: LabPage) -> None:
    show_notebook(lab)
    before = lab.page.locator(OUTPUT).get_attribute("data-seq")
    lab.command("notebook:restart-kernel")
    lab.answer("Restart")
    lab.page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    lab.moves(OUTPUT)
    assert int(lab.page.locator(OUTPUT).get_attribute("data-seq") or 0) > int(before or 0)


def a_papermill_output_comes_alive(opened: Callable[..., LabPage], server: LabServer, run: str, app: str, folder: Path) -> None:
    """The run goes on: what was stored is not what is seen."""
    import nbformat

    executed = executed_by_papermill(
        [f'import pluralis_lab as pl\nrun = pl.open_run("{run}")', "run.watch()"], folder, server.home
    )
    nbformat.write(executed, server.notebooks / "executed-live.ipynb")
    page = opened(f"{'lab/tree' if app == 'lab' else 'notebooks'}/executed-live.ipynb", server=server)
    page.page.locator('.plab-output-bar[data-kind="live"]', has_text="live").wait_for()
    page.moves(OUTPUT)
    assert page.ours() == []
    page.page.close()


def restart_the_server(lab: LabPage, run: str) -> None:
    page, view, server = lab.page, lab.open_run(run), lab.server
    server.stop()
    page.locator(f"{VIEW}.plab-is-stale").wait_for()
    # As long as the web socket is tried again, or once news are asked for without one.
    told = re.compile("connection to the server is lost|Jupyter server does not answer")
    view.locator(".plab-run-header").filter(has_text=told).wait_for()
    server.start()
    page.locator(f"{VIEW}:not(.plab-is-stale)").wait_for()
    lab.moves(VIEW)
    page.locator("#pluralis-lab-panel .plab-panel-trouble").wait_for(state="hidden")
    dismiss_dialogs(page)


def own_it(lab: LabPage, run: str) -> None:
    pane = lab.pane(lab.open_run(run), "Ownership")
    pane.get_by_role("button", name="Tokenize…").click()
    assert "This cannot be undone" in lab.answer("Tokenize")
    pane.get_by_text("The model is tokenized.").wait_for(timeout=120_000)
    pane.get_by_label("Amount in ETH").fill("0.5")
    pane.get_by_role("button", name="Pay…").click()
    token = pl.open_run(run).token
    asked = lab.answer("Pay 0.5 ETH")
    assert "0.5 ETH" in asked
    assert str(token.address) in asked, "to whom"
    assert "lab-a" in asked
    assert "lab-b" in asked
    pane.get_by_text("0.5 ETH paid by").wait_for(timeout=90_000)
    # Each claims its own part, and is asked about that part alone.
    for holder, other in (("lab-a", "lab-b"), ("lab-b", "lab-a")):
        pane.get_by_label("Account that pays or claims").select_option(holder)
        pane.locator("button:enabled", has_text="Claim…").click()
        asked = lab.answer("Claim")
        assert holder in asked
        assert other not in asked
        paid_out = pane.get_by_text(f"ETH went to {holder}")
        paid_out.wait_for(timeout=90_000)
        assert paid_out.inner_text().strip(" ✓").split(" ETH")[0] in asked, "what was asked is what was done"
    status = token.status()
    assert status["paid_wei"] == 5 * 10**17 == status["claimed_wei"] + status["dust_wei"]


def stop_from_the_panel(lab: LabPage, run: str) -> None:
    lab.panel()
    lab.line(run).click()
    lab.page.locator("#pluralis-lab-panel").get_by_role("button", name="Stop…").click()
    lab.answer("Stop the run")
    lab.line(run).and_(lab.page.locator('[data-state="stopped"]')).wait_for()
    assert pl.open_run(run).state == "stopped"
    lab.open_run(run).locator(".plab-pill", has_text="stopped").first.wait_for()


def show_notebook(lab: LabPage) -> None:
    """Bring the one open notebook to the front."""
    lab.page.evaluate(
        """() => {
            const { shell } = window.jupyterapp;
            const notebook = [...shell.widgets('main')].find(one => one.node.classList.contains('jp-NotebookPanel'));
            shell.activateById(notebook.id);
        }"""
    )
    lab.page.locator(OUTPUT).wait_for()


def dismiss_dialogs(page: Any) -> None:
    """JupyterLab tells in a dialog of its own that the server was away."""
    while page.locator(".jp-Dialog").count():
        page.keyboard.press("Escape")
